"""A restorer's training in a run folder: what it is validated by, what it leaves, and how that is opened again."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from baselines.contract.metrics import psnr
from baselines.restoration.config import Train, check_length
from baselines.restoration.pairs import PairBatch
from baselines.restoration.restorer import NetworkRestorer
from baselines.restoration.strips import MAX_SHEET_ROWS, RestoredImage, sheet
from baselines.restoration.training import RestorerTraining
from baselines.restoration.training_pairs import TrainingPairs, make_training_pairs
from pretrain.command import UserError
from pretrain.data.dataset import choose_folder
from pretrain.degrade import severity_named
from pretrain.drawing import Curve, curves, save_image
from pretrain.files import stored_json, write_json
from pretrain.training.device import choose_device
from pretrain.training.memory import told_what_fits
from pretrain.training.run import Run
from pretrain.training.session import TIMED_STEPS, Session, evaluate_every

TrainConfig = TypeVar("TrainConfig", bound=Train)
# How a restorer is read from the folder that it was saved to.
Load = Callable[[Path], NetworkRestorer]
MODEL, SUMMARY_FILE = "model", "training.json"
FORMAT = 2  # of SUMMARY_FILE. 2: `severity` and `validation`
MAX_DB = 100.0  # a perfect image's PSNR is infinite, and would be the mean's


def train_restorer(config: TrainConfig, make_restorer: Callable[[TrainConfig], NetworkRestorer]) -> int:
    """Train, or resume a training that was stopped, and write the model. Returns the exit code."""
    if config.pairs is None:
        config = replace(config, data=choose_folder(config.data))
        severity_named(config.severity)
    check_length(config)
    run, restorer = Run(config.out), make_restorer(config)
    restorer.recipe.check()
    # All that can be refused is refused before the folder is made.
    restorer.to(choose_device(config.device))
    config = replace(config, device=restorer.device.type)
    pairs = make_training_pairs(config, restorer.device)
    with run.held(config):
        if run.skip_if_finished():
            return 0
        training = restorer.prepare(pairs.source)
        validation = Validation(pairs.validation.to(restorer.device))
        session = Session(
            "training", training.network, training.optimizer, run, checkpoint_minutes=config.checkpoint_minutes
        )
        what_fits = told_what_fits(config.batch_size, config.crop_px, training.step_of, restorer.device,
                                   options=("--batch-size", "--crop-px"))  # fmt: skip
        with what_fits, session:
            session.steps = session.steps or length_in_steps(config, pairs.count, training, session, validation)
            restorer.steps = session.steps
            training.recipe = replace(training.recipe, steps=session.steps)
            summary = pairs.summary
            print(f"{type(restorer).__name__}: {summary['images']} images of {', '.join(summary['categories'])} "
                  f"({summary['data']}), {session.steps} steps of {config.batch_size}", flush=True)  # fmt: skip
            print(f"degradation, {summary['degradation']}", flush=True)
            take_steps(session, training, validation)
        write_result(config.out, restorer, training, pairs, validation, session)
        print(f"{session.steps} steps in {session.seconds / 60:.1f} min")
        print(f"model:  {config.out / MODEL}")
        print(f"curves: {config.out / 'curves.png'}")
        run.finish(MODEL, SUMMARY_FILE, "curves.png", "restored.png")
    return 0


def shared_arguments(config: Train) -> dict:
    """The arguments that every restorer takes, from the options."""
    names = ("batch_size", "crop_px", "learning_rate", "warmup", "half_cosines", "alpha", "beta", "weighting")
    given = {name: getattr(config, name) for name in (*names, "seed")}
    # Steps are known once the session has timed a few of them, if they were given in minutes.
    return given | {"loss_weights": list(config.loss_weights), "steps": config.steps or 1}


def length_in_steps(
    config: Train, count: int, training: RestorerTraining, session: Session, validation: "Validation"
) -> int:
    """Steps asked for, or those of the epochs, or those that fit into the minutes."""
    if config.steps or not config.minutes:
        return config.steps or max(1, config.epochs * count // config.batch_size)

    def timed(number: int, steps: int) -> dict:
        # Spread over the whole training: steps are slower once an encoder is trained too.
        return training.train_step(number, min(1.0, max(0.0, (number - 0.5) / TIMED_STEPS)))

    return session.steps_within(config.minutes, timed, lambda: validation.figures(training.network))


def take_steps(session: Session, training: RestorerTraining, validation: "Validation") -> None:
    """Take the steps that are left, validating about ten times, less often in a short training."""
    every = evaluate_every(session.steps)
    for step in session:
        figures = training.train_step(step)
        if (step + 1) % every == 0 or step + 1 == session.steps:
            # As numbers, which the session logs in every step; a GPU's tensors it reads only now and then.
            figures = {name: float(value) for name, value in figures.items()}
            with session.pause():
                figures |= validation.figures(training.network)
            session.print(validation.progress_line(step, figures))
        session.log(**figures)


class Validation:
    """PSNR of crops that nothing is learned from, beside that of the degraded crops themselves."""

    def __init__(self, batch: PairBatch) -> None:
        self.batch = batch
        degraded, clean, masks = batch
        self.degraded = _decibels(degraded, clean, masks)

    def figures(self, network: torch.nn.Module) -> dict[str, float]:
        """`psnr`, and `masked_psnr` in the defects where there are any."""
        degraded, clean, masks = self.batch
        return _decibels(_restored(network, degraded), clean, masks)

    def shown(self, network: torch.nn.Module) -> list[RestoredImage]:
        """The first crops, to be looked at."""
        degraded, clean, masks = (part[:MAX_SHEET_ROWS] for part in self.batch)
        images = zip(degraded.cpu(), _restored(network, degraded).cpu(), clean.cpu(), masks.cpu(), strict=True)
        return [RestoredImage(str(number), "", *image) for number, image in enumerate(images, 1)]

    def progress_line(self, step: int, figures: dict[str, float]) -> str:
        line = f"step {step + 1}: validation {figures['psnr']:.2f} dB (degraded {self.degraded['psnr']:.2f})"
        if "masked_psnr" in figures:
            line += f", in defects {figures['masked_psnr']:.2f} ({self.degraded['masked_psnr']:.2f})"
        return line + (f"; offsets {figures['offset_px']:.3f} px" if "offset_px" in figures else "")


def _restored(network: torch.nn.Module, degraded: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        restored = network(degraded).clamp(0, 1)
    network.train()
    return restored


def _decibels(restored: Tensor, clean: Tensor, masks: Tensor) -> dict[str, float]:
    """Mean PSNR over the images (b, 3, h, w), and in the masks (b, h, w) of those that have one."""
    has_mask = masks.flatten(1).any(1)
    figures = {"psnr": psnr(restored, clean).clamp(max=MAX_DB).mean().item()}
    if has_mask.any():
        figures["masked_psnr"] = psnr(restored, clean, masks).clamp(max=MAX_DB)[has_mask].mean().item()
    return figures


def write_result(
    out: Path,
    restorer: NetworkRestorer,
    training: RestorerTraining,
    pairs: TrainingPairs,
    validation: Validation,
    session: Session,
) -> None:
    """Write the model, a summary of its training, restored crops, and the curves."""
    title = type(restorer).__name__
    shown = sheet(validation.shown(training.network), f"{title}: crops that nothing was learned from")
    save_image(shown, out / "restored.png")
    restorer.finish(training.network).save(out / MODEL)
    lines = session.run.metrics()
    validated = [line for line in lines if "psnr" in line]
    restored = {name: validated[-1][name] for name in validation.degraded}
    summary = pairs.summary | {
        "format": FORMAT,
        "restorer": title,
        "steps": session.steps,
        "minutes": session.seconds / 60,
        "encoder_saw": list(restorer.saw),
        "recipe": asdict(training.recipe),
        "validation": {"degraded": validation.degraded, "restored": restored},
    }
    write_json(out / SUMMARY_FILE, summary)
    captions = {"psnr": "validation PSNR, dB (dashed: degraded)", "masked_psnr": "the same in defects"}
    panels = [Curve("loss", [(line["step"], line["loss"]) for line in lines])]
    panels += [
        Curve(captions[name], [(line["step"], line[name]) for line in validated], level)
        for name, level in validation.degraded.items()
    ]
    if "offset_px" in lines[0]:
        panels.append(Curve("mean size of offsets, px", [(line["step"], line["offset_px"]) for line in lines]))
    save_image(curves(panels, f"{title} on {summary['data']}"), out / "curves.png")


def training_summary(run: Path) -> dict:
    """What a finished training wrote about itself. Raises UserError where there is none."""
    file = run / SUMMARY_FILE
    if not file.is_file():
        raise UserError(f"there is no finished training in {run}; the command train makes one.")
    summary = stored_json(file, "train the model anew")
    if (written := summary.get("format", 1)) != FORMAT:
        raise UserError(f"{file} has format {written}, and this heldout reads format {FORMAT}: train the model anew.")
    return summary


def open_restorer(run: Path, load: Load, memory_mb: float, device: str) -> tuple[NetworkRestorer, dict]:
    """A trained restorer on a device, and the summary of its training."""
    summary = training_summary(run)
    restorer = load(run / MODEL).to(choose_device(device))
    restorer.memory_mb = memory_mb
    restorer.tile_px  # noqa: B018  raises where the memory is too little, before any work
    return restorer, summary
