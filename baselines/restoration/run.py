"""A restorer's training in a run folder: looked at, logged, saved, resumed, and its model written."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import Pair
from baselines.contract.metrics import psnr
from baselines.restoration.pair_folder import PairFolder
from baselines.restoration.pairs import Batch, CroppedPairs, SyntheticPairs, good_images
from baselines.restoration.restorer import NetworkRestorer
from baselines.restoration.training import Step, Training
from pretrain.command import UserError
from pretrain.data.dataset import data_name, load
from pretrain.degrade import in_words
from pretrain.demo import is_demo
from pretrain.drawing import Curve, curves, save_image
from pretrain.files import write_json
from pretrain.plan import TIMED_STEPS, steps_in
from pretrain.progress import Progress
from pretrain.training.run import Run

if TYPE_CHECKING:
    from baselines.sadnet import Train

# How a restorer is read from the folder that it was saved to.
Load = Callable[[Path], NetworkRestorer]
MODEL, METADATA_FILE = "model", "training.json"
LOOKS, LOOKED_AT = 10, 8
HELD_OUT = 0.1
BEST_DB = 100.0
# Of what is looked at, the same in every training.
OWN_SEED = 2**31
# More than any training asks for: a training says itself how many it takes.
ENDLESS = 2**40


class Material(NamedTuple):
    """`source` gives the pairs to learn from, `looked_at` is a batch that nothing is learned from; `metadata` tell what
    they are, plain JSON; `count` images make an epoch."""

    source: Callable[[Sequence[int]], Batch]
    looked_at: Batch
    metadata: dict
    count: int


def make_material(config: "Train", device: torch.device | str = "cpu") -> Material:
    """Pairs by planting and degrading, on the device, or real ones. Raises UserError where they cannot teach what is
    asked."""
    return _real(config) if config.pairs else _synthetic(config, device)


def _synthetic(config: "Train", device: torch.device | str) -> Material:
    images = load(config.data, config.input_size, config.train)
    good = good_images(images).images
    if not len(good):
        raise UserError(f"{', '.join(images.categories)} has no good images to learn from: name others by --train.")
    parts = good.split({"learning": 1 - HELD_OUT, "looked at": HELD_OUT}, seed=0)
    if not len(parts["looked at"]):
        parts = dict.fromkeys(parts, good)
    learning, looked_at = (
        SyntheticPairs(good_images(part), config.level, config.crop_px, ENDLESS, seed, device)
        for part, seed in ((parts["learning"], config.seed), (parts["looked at"], OWN_SEED))
    )
    metadata = {
        "data": data_name(config.data),
        "is_demo": is_demo(config.data),
        "categories": images.categories,
        "level": config.level,
        "degradation": in_words(config.level),
        "input_size": config.input_size,
        "images": len(parts["learning"]),
    }
    return Material(learning.batch, looked_at.batch(range(LOOKED_AT)), metadata, len(parts["learning"]))


def _real(config: "Train") -> Material:
    folder = PairFolder(config.pairs, config.input_size, config.train).check()
    if config.beta and not folder.has_masks:
        raise UserError(
            f"{config.pairs} has no masks, so defects cannot count more: add Defect_mask, or give --beta 0."
        )
    order = np.random.default_rng(0).permutation(len(folder)).tolist()
    kept = max(1, round(HELD_OUT * len(folder))) if len(folder) > 1 else 0
    pairs = _Pairs(folder, order[kept:])
    looked_at = CroppedPairs(_Pairs(folder, order[:kept] or order), config.crop_px, OWN_SEED).batch(range(LOOKED_AT))
    metadata = {
        "data": str(config.pairs),
        "is_demo": False,
        "categories": sorted({files.category for files in folder.files}),
        "level": None,
        "degradation": "as the pairs have it",
        "input_size": config.input_size,
        "images": len(pairs),
    }
    return Material(CroppedPairs(pairs, config.crop_px, config.seed).batch, looked_at, metadata, len(pairs))


class _Pairs(Sequence[Pair]):
    """Some pairs of a folder, without their names."""

    def __init__(self, folder: PairFolder, positions: Sequence[int]) -> None:
        self.folder, self.positions = folder, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Pair:
        return self.folder[self.positions[position]].pair


class Session:
    """A training in a run folder, which the caller holds."""

    def __init__(self, restorer: NetworkRestorer, run: Run, material: Material, config: "Train") -> None:
        self.restorer, self.run, self.material, self.config = restorer, run, material, config
        self.training: Training = restorer.training(material.source)
        self.looked_at = material.looked_at.to(restorer._device)
        degraded, clean, masks = material.looked_at
        self.untouched = _decibels(degraded, clean, masks)
        metadata = run.restore(self.training.network, self.training.optimizer) or {"step": 0, "seconds": 0.0}
        self.first, self.seconds_before = metadata["step"], metadata["seconds"]
        self.steps = metadata.get("steps") or self._length()
        self.training.recipe = replace(self.training.recipe, steps=self.steps)
        restorer.steps = self.steps
        run.forget_figures_from(self.first)

    def _length(self) -> int:
        config = self.config
        if config.steps or not config.minutes:
            return config.steps or max(1, config.epochs * self.material.count // config.batch_size)

        def timed(step: int, steps: int) -> Step:
            """Evenly over the training: steps are slower once an encoder is tuned too."""
            return self.training.take(step, min(1.0, max(0.0, (step - 0.5) / TIMED_STEPS)))

        return steps_in(config.minutes, timed, self.training.network, self.training.optimizer)

    def walk(self, is_stop_asked: Callable[[], bool]) -> bool:
        """Take the steps that are left; whether the training came to its end."""
        every = max(1, math.ceil(self.steps / LOOKS))
        self._start_s = saved_s = time.monotonic()
        with Progress("training", self.steps, "steps", done=self.first) as progress:
            for step in self.training.walk(self.first):
                figures = self.look() if (step.step + 1) % every == 0 or step.step + 1 == self.steps else {}
                self.run.log(step.step, **_known(step), **figures)
                progress.advance(note=f"loss {step.loss:.2f}")
                if figures:
                    progress.print(self._in_words(step, figures))
                is_stopped = is_stop_asked()
                if is_stopped or time.monotonic() - saved_s > 60 * self.config.checkpoint_minutes:
                    self.save(step.step + 1)
                    saved_s = time.monotonic()
                if is_stopped and step.step + 1 < self.steps:
                    print(f"stopped after {step.step + 1} of {self.steps} steps; the same command goes on from there.")
                    return False
        return True

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._start_s

    def look(self) -> dict[str, float | None]:
        """PSNR of images that nothing is learned from, also in their defects, where they have some."""
        network, (degraded, clean, masks) = self.training.network, self.looked_at
        network.eval()
        with torch.no_grad():
            restored = network(degraded).clamp(0, 1)
        network.train()
        return dict(zip(("psnr", "masked_psnr"), _decibels(restored, clean, masks), strict=True))

    def save(self, step: int) -> None:
        metadata = {"step": step, "steps": self.steps, "seconds": self.seconds}
        self.run.save(self.training.network, self.training.optimizer, metadata)

    def conclude(self) -> None:
        """Write the model, the curves and what it was trained on."""
        out = self.config.out
        self.restorer.conclude(self.training.network).save(out / MODEL)
        metadata = self.material.metadata | {"steps": self.steps, "minutes": self.seconds / 60}
        metadata |= {"encoder_saw": list(self.restorer.saw), "restorer": type(self.restorer).__name__}
        metadata |= {"recipe": asdict(self.training.recipe)}
        lines = self.run.metrics()
        looks = [line for line in lines if "psnr" in line]
        metadata |= {
            "looked_at": {"degraded": self.untouched, "restored": [looks[-1]["psnr"], looks[-1]["masked_psnr"]]}
        }
        write_json(out / METADATA_FILE, metadata)
        panels = [
            Curve("loss", [(line["step"], line["loss"]) for line in lines]),
            Curve("PSNR of images not learned from, dB (dashed: degraded)",
                  [(line["step"], line["psnr"]) for line in looks], self.untouched[0]),
        ]  # fmt: skip
        if self.untouched[1] is not None:
            masked = [(line["step"], line["masked_psnr"]) for line in looks]
            panels.append(Curve("the same in defects", masked, self.untouched[1]))
        if "offset_px" in lines[0]:
            panels.append(Curve("mean size of offsets, px", [(line["step"], line["offset_px"]) for line in lines]))
        save_image(curves(panels, f"{metadata['restorer']} on {metadata['data']}"), out / "curves.png")

    def _in_words(self, step: Step, figures: dict[str, float]) -> str:
        offsets = "" if step.offset_px is None else f"; offsets {step.offset_px:.3f} px"
        whole, masked = self.untouched
        in_defects = "" if masked is None else f", in defects {figures['masked_psnr']:.2f} ({masked:.2f})"
        return (
            f"step {step.step + 1}: images not learned from {figures['psnr']:.2f} dB (degraded {whole:.2f})"
            f"{in_defects}{offsets}"
        )


def _decibels(restored: Tensor, clean: Tensor, masks: Tensor) -> tuple[float, float | None]:
    """Mean PSNR over the images, and in the masks of those that have one; a perfect image counts as 100 dB."""
    whole, masked = psnr(restored, clean).clamp(max=BEST_DB), psnr(restored, clean, masks).clamp(max=BEST_DB)
    has_mask = masks.flatten(1).any(1)
    return whole.mean().item(), masked[has_mask].mean().item() if has_mask.any() else None


def _known(step: Step) -> dict[str, float]:
    return {name: value for name, value in step._asdict().items() if value is not None and name != "step"}


def training_metadata(run: Path) -> dict:
    """What a finished training wrote about itself. Raises UserError where there is none."""
    file = run / METADATA_FILE
    if not file.is_file():
        raise UserError(f"there is no finished training in {run}; the command train makes one.")
    return json.loads(file.read_text())


def opened(run: Path, load: Load, memory_mb: float) -> tuple["NetworkRestorer", dict]:
    """A trained restorer, and what its training wrote about itself."""
    metadata = training_metadata(run)
    restorer = load(run / MODEL)
    restorer.memory_mb = memory_mb
    restorer.tile_px  # noqa: B018  too little memory is told before any work
    return restorer, metadata
