"""What a pretraining run shows for itself: the monitor's figures while it runs, then encoder, curves and a table."""

import math
import sys
from collections.abc import Callable, Sequence

from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pretrain.command import UserError
from pretrain.config import Config
from pretrain.data.dataset import ImageSet, data_name
from pretrain.demo import is_demo
from pretrain.drawing import Curve, Thumbnail, contact_sheet, curves, save_image
from pretrain.encoder import DEFAULT_ARCHITECTURE, make_encoder
from pretrain.loss import chance_loss
from pretrain.monitor import Figures, Monitor
from pretrain.training.best_weights import BestWeights
from pretrain.training.run import Run
from pretrain.training.session import Session, evaluate_every
from pretrain.weights import HUB, IMAGENET, Origin

# A sheet of the views that a training begins with, and the images of which it has them.
VIEWS, VIEWS_SHOWN = "views.png", 8


class Report:
    """Only the first of several processes shows and writes."""

    def __init__(self, config: Config, run: Run, fabric: Fabric, images: ImageSet, unseen: ImageSet) -> None:
        self.config, self.run, self.fabric, self.images = config, run, fabric, images
        self._leads = fabric.is_global_zero
        extra = config.batch if config.synthetic_negatives else 0
        self._chance = chance_loss(config.batch, extra)
        self._monitor = Monitor(images, unseen, config, fabric.device) if self._leads else None
        self._unseen_count = len(unseen)

    def begin(self, session: Session, first_views: Callable[[], tuple[Tensor, Tensor | None]]) -> None:
        """Say what is about to be trained, on what, and what is never opened; show the first views of the first step,
        as `make_views` gives them."""
        self._session, config, images = session, self.config, self.images
        self._every = config.monitor_every or evaluate_every(session.steps)
        if not self._leads:
            return
        print(f"pretraining on {data_name(images.folder)}: {len(images)} normals of {', '.join(images.categories)}; "
              f"{self._unseen_count} more are only evaluated on")  # fmt: skip
        print(f"never opened: {config.hold_out or 'nothing is held out'}")
        print(f"{config.architecture} from {config.start}, recipe {config.recipe}, {config.size_px} px, "
              f"batch {config.batch}, {config.device}, {config.precision}, {self.fabric.world_size} process(es), "
              f"{session.steps} steps", flush=True)  # fmt: skip
        if not session.first_step:
            save_image(view_sheet(*first_views()), config.out / VIEWS)
            self.run.show(VIEWS)

    def measure(self, module: nn.Module) -> Figures | None:
        """What the monitor finds, and how long that takes; none but on the first process."""
        return self._monitor.measure(module.encoder, module.projection) if self._leads else None

    def evaluate(self, step: int, learner: BestWeights) -> None:
        """Measure now and then what the steps before `step` achieved, keep the best, and end the session where nothing
        was better for long."""
        session = self._session
        if step % self._every and step != session.steps:
            return
        if self._leads:
            with session.pause():
                figures = self.measure(learner.network)
                session.record(**figures._asdict(), **self._interval(figures))
                evaluations = self._evaluations()
                start, best = evaluations[0]["synthetic_auroc"], _best(evaluations)
                session.print(
                    f"step {step}: synthetic anomalies on unseen normals: AUROC {figures.synthetic_auroc:.3f} "
                    f"(before the first step {start:.3f}); alignment {figures.alignment:.2f}, "
                    f"uniformity {figures.uniformity:.2f}, RankMe {figures.rank_me:.0f}"
                )
                if self.config.image_weight and step > session.first_step and figures.is_collapsed:
                    session.print(
                        f"WARNING: the projections have collapsed (spread {figures.spread:.3f} of 1): images are no "
                        "longer told apart. Stop, and lower --learning-rate or raise --temperature."
                    )
                if best == len(evaluations) - 1:
                    learner.keep()
                elif step < session.steps and self._is_out_of_patience(len(evaluations) - 1 - best):
                    session.is_over = True
                    session.print(f"ended at step {step}: none was better since step {evaluations[best]['step']}")
        session.is_over = self.fabric.broadcast(session.is_over)  # the others wait here

    def describe(self, losses: dict[str, float]) -> str:
        """The losses of a step, for the progress bar."""
        image = f"loss {losses['image']:.2f} (chance {self._chance:.2f}), " if self.config.image_weight else ""
        dense = f"dense {losses['dense']:.2f}, " if self.config.dense_weight else ""
        rate = self.config.batch * self._session.steps_per_second
        return f"{rate:.0f} images/s, {image}{dense}other view found {losses['accuracy']:.0%}"

    def finish(self, learner: BestWeights) -> None:
        """Write the encoder and the curves, print the table and what to type next."""
        if not self._leads:
            return
        config, evaluations = self.config, self._evaluations()
        losses = [line for line in self.run.metrics() if "loss" in line]
        first, last = (Figures(**{name: line[name] for name in Figures._fields})
                       for line in (evaluations[0], evaluations[-1]))  # fmt: skip
        is_best = config.keep == "best"
        kept = evaluations[_best(evaluations) if is_best else -1]
        encoder = (learner.best if is_best else learner.network).encoder
        path = config.out / "encoder.safetensors"
        encoder.origin = self._origin(first, kept).after(encoder.origin)
        encoder.save(path)
        save_image(self._curves(evaluations, losses), config.out / "curves.png")
        self._print_table(first, last, losses)
        print(f"encoder: {path}, {encoder.history}")
        print(f"curves:  {config.out / 'curves.png'}")
        if is_best and not kept["step"]:
            print(f"No evaluation was better than that before the first step: the start is kept, and {path} holds it.")
        elif kept is not evaluations[-1]:
            print(f"Kept are the weights of step {kept['step']}, the best: AUROC {kept['synthetic_auroc']:.3f}.")
        if reason := encoder.origin.why_not_better:
            print(
                f"It {reason}: detect.py, search.py and restore.py stay with ImageNet's weights unless --encoder names "
                "this file; evaluate.py compares the two."
            )
        if config.hold_out:
            study = f"--data {config.data} --train {','.join(self.images.categories)} --test {config.hold_out}"
            print(f"next:    python downstream/evaluate.py --encoder {path} {study}")
        else:
            print(f"next:    python downstream/detect.py fit --encoder {path} --data FOLDER_OF_GOOD_IMAGES")
        self.run.finish(path.name, "curves.png")

    def _is_out_of_patience(self, evaluations_since_best: int) -> bool:
        return self.config.patience is not None and evaluations_since_best >= self.config.patience

    def _interval(self, figures: Figures) -> dict[str, float]:
        """Of the figure that was measured last, where it is one."""
        return self._monitor.interval() if math.isfinite(figures.synthetic_auroc) else {}

    def _evaluations(self) -> list[dict]:
        """All so far, from the file: a run that was resumed began in another process."""
        return [line for line in self.run.metrics() if "synthetic_auroc" in line]

    def _origin(self, first: Figures, kept: dict) -> Origin:
        # Where the data lie is this machine's own affair; what their folder is called, the origin says.
        recipe = {name: value for name, value in self.run.config().items() if name != "data"}
        recipe |= {"steps": self._session.step, "kept_step": kept["step"], "images": len(self.images)}
        recipe |= {"synthetic_auroc": kept["synthetic_auroc"], "synthetic_auroc_of_start": first.synthetic_auroc}
        recipe |= {"synthetic_auroc_interval": [kept.get(f"synthetic_auroc_{end}") for end in ("low", "high")]}
        recipe |= self._monitor.counts
        if self.config.start not in (IMAGENET, HUB) or self.config.architecture != DEFAULT_ARCHITECTURE:
            recipe["synthetic_auroc_of_imagenet"] = self._imagenet_auroc()
        folder = self.images.folder
        return Origin(folder.resolve().name, tuple(self.images.categories), is_demo(folder), recipe)

    def _imagenet_auroc(self) -> float | None:
        """That of the weights with which detect.py begins, on the same images; none where they are not installed."""
        try:
            return self._monitor.synthetic_auroc(make_encoder(start=IMAGENET).eval().to(self.fabric.device))
        except UserError:
            return None

    def _curves(self, evaluations: list[dict], losses: list[dict]):
        panels = [
            Curve(title, [(line["step"], line[name]) for line in evaluations])
            for name, title in (
                ("synthetic_auroc", "synthetic anomalies on unseen normals, AUROC"),
                ("alignment", "alignment (lower: views agree)"),
                ("uniformity", "uniformity (lower: more evenly spread)"),
            )
        ]
        if self.config.dense_weight:
            panels.insert(0, Curve("loss, positions", [(line["step"], line["dense"]) for line in losses]))
        if self.config.image_weight:
            points = [(line["step"], line["image"]) for line in losses]
            panels.insert(0, Curve("loss, whole images (dashed: chance)", points, self._chance))
        return curves(panels, f"pretraining on {data_name(self.images.folder)}")

    def _print_table(self, first: Figures, last: Figures, losses: list[dict]) -> None:
        title = f"{self.config.out}: {self._session.steps} steps in {self._session.seconds / 60:.1f} min"
        table = Table(title=title)
        for header in ("", "at the start", "at the end", "chance or ideal"):
            table.add_column(header, justify="left" if not header else "right")

        def row(name: str, before: float, after: float, form: str, ideal: str) -> None:
            table.add_row(name, format(before, form), format(after, form), ideal)

        start, end = losses[0], losses[-1]
        if self.config.image_weight:
            row("loss, whole images", start["image"], end["image"], ".3f", f"{self._chance:.3f}")
        if self.config.dense_weight:
            row("loss, positions", start["dense"], end["dense"], ".3f", "")
        row("other view found", start["accuracy"], end["accuracy"], ".0%", "100%")
        row("synthetic anomalies, AUROC", first.synthetic_auroc, last.synthetic_auroc, ".3f", "0.5 to 1")
        row("alignment", first.alignment, last.alignment, ".3f", "0")
        row("uniformity", first.uniformity, last.uniformity, ".3f", "-4")
        row("RankMe", first.rank_me, last.rank_me, ".0f", "")
        Console(width=None if sys.stdout.isatty() else 100).print(table)


def _best(evaluations: Sequence[dict]) -> int:
    """Which has the highest figure; of equal ones the first."""
    return max(range(len(evaluations)), key=lambda number: evaluations[number]["synthetic_auroc"])


def view_sheet(views: Tensor, masks: Tensor | None) -> Image.Image:
    """Views of a step below one another, image beside image, and the outlines of synthetic anomalies."""
    count = len(views) // (2 if masks is None else 3)
    pixels = views.float().permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()  # (2n or 3n, h, w, 3)
    rows = [("view", pixels[:count]), ("other view", pixels[count : 2 * count])]
    sheet = [(label, [Thumbnail(image) for image in images]) for label, images in rows]
    if masks is not None:
        pairs = zip(pixels[2 * count :], masks.cpu().numpy(), strict=True)
        sheet.append(("anomaly", [Thumbnail(image, mask=mask) for image, mask in pairs]))
    return contact_sheet(sheet, "views that are to be recognized as one image's")
