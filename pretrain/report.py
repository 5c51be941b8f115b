"""What a pretraining run shows for itself: figures while it runs, then the encoder, its curves and a table."""

import math
import sys
import time
from typing import TYPE_CHECKING, Self

from torch import nn
from torch.optim import Optimizer

from pretrain.command import UserError
from pretrain.contrast import Losses, SimCLR
from pretrain.data.dataset import ImageSet, data_name
from pretrain.demo import is_demo
from pretrain.drawing import Curve, curves, save_image
from pretrain.encoder import Encoder, Origin
from pretrain.loss import chance_loss
from pretrain.monitor import Figures, Monitor
from pretrain.progress import Progress
from pretrain.training.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pretrain.simclr import Config

# Reading a loss makes a GPU wait for it.
STEPS_BETWEEN_READINGS = {"cpu": 1, "cuda": 20}


class Outcome:
    """A context around the training loop. Only the first of several processes shows and writes."""

    def __init__(
        self,
        config: "Config",
        fabric: "Fabric",
        run: Run,
        images: ImageSet,
        unseen: ImageSet,
        metadata: dict,
        steps: int,
    ) -> None:
        self.config, self.fabric, self.run, self.images, self.steps = config, fabric, run, images, steps
        self._leads = fabric.is_global_zero
        self._first_step, self._seconds_before = metadata["step"], metadata["seconds"]
        self._monitor_every = config.monitor_every or max(1, math.ceil(steps / 10))
        self._reading_every = STEPS_BETWEEN_READINGS[fabric.device.type]
        extra = config.batch if config.synthetic else 0
        self._chance = chance_loss(config.batch, extra)
        self._progress = Progress("pretraining", steps, "steps", done=self._first_step)
        if self._leads:
            self._monitor = Monitor(images, unseen, config, fabric.device)
            self._announce(unseen)
            run.forget_figures_from(self._first_step)

    def __enter__(self) -> Self:
        self._start_s = self._saved_s = time.monotonic()
        self._looking_s = 0.0
        if self._leads:
            self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._leads:
            self._progress.__exit__(*error)

    @property
    def seconds(self) -> float:
        """Of training, over all resumes."""
        return self._seconds_before + time.monotonic() - self._start_s

    def look(self, step: int, module: SimCLR) -> None:
        """Measure what was achieved by the steps before `step`, now and then."""
        if self._leads and (step % self._monitor_every == 0 or step == self.steps):
            started_s = time.monotonic()
            figures = self._monitor.measure(module.encoder, module.projection)
            self._check_numbers(step, figures._asdict())
            self.run.log(step, **figures._asdict())
            start = next(line["synthetic_auroc"] for line in self.run.metrics() if "synthetic_auroc" in line)
            self._progress.print(
                f"step {step}: synthetic anomalies on unseen normals: AUROC {figures.synthetic_auroc:.3f} "
                f"(before the first step {start:.3f}); alignment {figures.alignment:.2f}, "
                f"uniformity {figures.uniformity:.2f}, RankMe {figures.rank_me:.0f}"
            )
            if self.config.whole_weight and step > self._first_step and figures.is_collapsed:
                self._progress.print(
                    f"WARNING: the projections have collapsed (spread {figures.spread:.3f} of 1): images are no "
                    "longer told apart. Stop, and lower --learning-rate or raise --temperature."
                )
            self._looking_s += time.monotonic() - started_s
        self.fabric.barrier()

    def note(self, step: int, losses: Losses) -> None:
        """Show and log the losses of a step. Raises UserError if they are no longer numbers."""
        if step % self._reading_every and step + 1 < self.steps:
            if self._leads:
                self._progress.advance()
            return
        values = {name: value.item() for name, value in losses._asdict().items()}
        self._check_numbers(step, values)
        if self._leads:
            self.run.log(step, **values)
            shown = f"loss {values['whole']:.2f} (chance {self._chance:.2f}), " if self.config.whole_weight else ""
            shown += f"places {values['dense']:.2f}, " if self.config.dense_weight else ""
            training_s = time.monotonic() - self._start_s - self._looking_s
            rate = self.config.batch * (step + 1 - self._first_step) / training_s
            self._progress.advance(note=f"{rate:.0f} images/s, {shown}found {values['accuracy']:.0%}")

    def is_time_to_save(self) -> bool:
        return self._leads and time.monotonic() - self._saved_s > 60 * self.config.checkpoint_minutes

    def save(self, step: int, module: nn.Module, optimizer: Optimizer) -> None:
        """Write a checkpoint after `step` steps, unless the weights are spoilt."""
        if self._leads and all(weights.isfinite().all() for weights in module.state_dict().values()):
            self.run.save(module, optimizer, {"step": step, "steps": self.steps, "seconds": self.seconds})
            self._saved_s = time.monotonic()

    def conclude(self, encoder: Encoder) -> None:
        """Write the encoder and the curves, print the table and what to type next."""
        if not self._leads:
            return
        config, lines = self.config, self.run.metrics()
        looks = [line for line in lines if "synthetic_auroc" in line]
        losses = [line for line in lines if "loss" in line]
        first, last = (Figures(**{name: look[name] for name in Figures._fields}) for look in (looks[0], looks[-1]))
        recipe = {name: value for name, value in self.run.config().items() if name != "data"}
        recipe |= {"steps": self.steps, "images": len(self.images), "synthetic_auroc": last.synthetic_auroc}
        categories, demo = tuple(self.images.categories), is_demo(self.images.folder)
        origin = Origin(self.images.folder.resolve().name, categories, demo, recipe)
        encoder.origin = origin.after(encoder.origin)
        path = config.out / "encoder.safetensors"
        encoder.save(path)
        self._draw(looks, losses, config.out / "curves.png")
        self._print_table(first, last, losses)
        print(f"encoder: {path}")
        print(f"curves:  {config.out / 'curves.png'}")
        if config.hold_out:
            study = f"--data {config.data} --train {','.join(categories)} --test {config.hold_out}"
            print(f"next:    python downstream/evaluate.py --encoder {path} {study}")
        else:
            print(f"next:    python downstream/detect.py fit --encoder {path} --data FOLDER_OF_GOOD_IMAGES")
        self.run.finish()

    def _check_numbers(self, step: int, values: dict[str, float]) -> None:
        if not all(map(math.isfinite, values.values())):
            raise UserError(
                f"the loss is not a number any more at step {step}: lower --learning-rate, or use --precision 32-true, "
                f"with another --out. The last good checkpoint is kept in {self.config.out}."
            )

    def _announce(self, unseen: ImageSet) -> None:
        config = self.config
        print(f"pretraining on {data_name(self.images.folder)}: {len(self.images)} good images of "
              f"{', '.join(self.images.categories)}; {len(unseen)} more are only looked at")  # fmt: skip
        print(f"never opened: {config.hold_out or 'nothing is held out'}")
        print(f"{config.architecture} from {config.start}, {config.size_px} px, batch {config.batch}, {config.device}, "
              f"{config.precision}, {self.fabric.world_size} process(es), {self.steps} steps")  # fmt: skip
        if self._first_step:
            print(f"going on after step {self._first_step}")
        sys.stdout.flush()

    def _draw(self, looks: list[dict], losses: list[dict], path) -> None:
        name = f"pretraining on {data_name(self.images.folder)}"
        panels = [
            Curve("synthetic anomalies on unseen normals, AUROC", [(k["step"], k["synthetic_auroc"]) for k in looks]),
            Curve("alignment (lower: views agree)", [(look["step"], look["alignment"]) for look in looks]),
            Curve("uniformity (lower: more evenly spread)", [(look["step"], look["uniformity"]) for look in looks]),
        ]
        if self.config.dense_weight:
            panels.insert(0, Curve("loss, places", [(line["step"], line["dense"]) for line in losses]))
        if self.config.whole_weight:
            whole = [(line["step"], line["whole"]) for line in losses]
            panels.insert(0, Curve("loss, whole images (dashed: chance)", whole, self._chance))
        save_image(curves(panels, name), path)

    def _print_table(self, first: Figures, last: Figures, losses: list[dict]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.config.out}: {self.steps} steps in {self.seconds / 60:.1f} min")
        for header in ("", "at the start", "at the end", "chance or ideal"):
            table.add_column(header, justify="left" if not header else "right")
        if self.config.whole_weight:
            table.add_row(
                "loss, whole images", f"{losses[0]['whole']:.3f}", f"{losses[-1]['whole']:.3f}", f"{self._chance:.3f}"
            )
        if self.config.dense_weight:
            table.add_row("loss, places", f"{losses[0]['dense']:.3f}", f"{losses[-1]['dense']:.3f}", "")
        table.add_row("other view found", f"{losses[0]['accuracy']:.0%}", f"{losses[-1]['accuracy']:.0%}", "100%")
        table.add_row(
            "synthetic anomalies, AUROC", f"{first.synthetic_auroc:.3f}", f"{last.synthetic_auroc:.3f}", "0.5 to 1"
        )
        table.add_row("alignment", f"{first.alignment:.3f}", f"{last.alignment:.3f}", "0")
        table.add_row("uniformity", f"{first.uniformity:.3f}", f"{last.uniformity:.3f}", "-4")
        table.add_row("RankMe", f"{first.rank_me:.0f}", f"{last.rank_me:.0f}", "")
        Console(width=None if sys.stdout.isatty() else 100).print(table)
