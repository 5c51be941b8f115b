"""How fast models answer, from images that lie in the device's memory and one by one, beside anomalib's; and how far
their answers on a GPU are from those on the CPU."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from baselines.contract.method import Images, Method
from downstream.export import main as export
from downstream.exporting.config import Config as Export
from downstream.inspection.config import Fit
from downstream.inspection.fitting import fit
from downstream.methods.exported import Exported
from downstream.methods.loading import load_any
from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.data.size import DEFAULT_PX
from pretrain.training.device import wait_for
from scripts.benchmarks.infer import LITE, write_weights
from scripts.benchmarks.parts.setting import Figures, Setting, left_out, run_typed
from scripts.benchmarks.peers import CONTESTANTS, started

METHODS, THEIRS = ("padim", "patchcore", "fused"), ("padim", "patchcore")
THEIR_PX, DIMENSIONS, SHARE = 256, 100, 0.01
SPARSE = {"padim": "dimensions=8,grid=4", "patchcore": "dimensions=8,grid=4", "fused": "grid=4"}


def inference(setting: Setting) -> Iterator[Figures]:
    """Images a second by batches, and milliseconds of one alone, from its bytes to its score: at our own size, and at
    anomalib's, at which alone the two do the same work."""
    own_px, their_px = setting.size((DEFAULT_PX, THEIR_PX), (32, 48))
    batch = setting.size(64, 2)
    work = [(name, own_px) for name in METHODS] + [(name, their_px) for name in THEIRS]
    for name, size_px in work:
        figure = name if size_px == own_px else f"{name} at {size_px} px"
        if setting.is_over:
            yield left_out(figure)
            continue
        normals, tests = material(setting, size_px, batch)
        folder = setting.folder / figure
        fit_config = Fit(data=setting.data, category=normals.categories[0], method=name, encoder=Path("imagenet"),
                         size_px=size_px, shots=str(len(normals)), device=setting.device, out=folder,
                         options=SPARSE[name] if setting.is_tiny else "")  # fmt: skip
        start_s = time.perf_counter()
        fit(fit_config)
        yield {f"fit_s {figure}": time.perf_counter() - start_s}
        yield measured(figure, load_any(folder, setting.device), tests, batch, setting)
        if size_px == own_px:
            yield agreement(name, folder, tests, setting)
        if (name, size_px) == ("padim", own_px):
            yield from onnx(setting, folder, tests, batch)
    if setting.is_over:
        yield left_out("anomalib")
        return
    normals, _ = material(setting, their_px, batch)
    yield from anomalibs(setting, normals)


def material(setting: Setting, size_px: int, batch: int) -> tuple[ImageSet, Images]:
    """Normals of the first category, and as many of its test images as a batch has."""
    category = load(setting.data, size_px).categories[0]
    images = load(setting.data, size_px, Names(category))
    normals = [i for i, record in enumerate(images.records) if record.split == "train"][: setting.size(150, 4)]
    tests = [i for i, record in enumerate(images.records) if record.split == "test"][:batch]
    return images.subset(normals), Images(images.subset(tests))


def measured(name: str, method: Method, tests: Images, batch: int, setting: Setting) -> Figures:
    device = torch.device(setting.device)
    lying_there = torch.stack([tests[i % len(tests)] for i in range(batch)]).to(device)
    method.batch_size = batch

    def by_batches() -> None:
        for prediction in method.predict(lying_there):
            last = prediction.scores
        float(last.sum())  # waits

    def one_by_one() -> None:
        for prediction in method.predict([tests[0]]):
            prediction.cpu()

    return {
        f"images_per_s {name}": batch / _usual_s(by_batches, setting, device),
        f"ms_alone {name}": 1e3 * _usual_s(one_by_one, setting, device),
    }


def agreement(name: str, folder: Path, tests: Images, setting: Setting) -> Figures:
    """The highest relative difference between the scores of the two devices."""
    here, there = (
        torch.cat([prediction.cpu().scores for prediction in load_any(folder, device).predict(tests)])
        for device in ("cpu", setting.device)
    )
    return {f"score_difference {name}": float(((there - here).abs() / here.abs().clamp(min=1e-9)).max())}


def onnx(setting: Setting, model: Path, tests: Images, batch: int) -> Iterator[Figures]:
    """The same model as an ONNX file, by onnxruntime."""
    run_typed(export, Export, model, "--out", setting.folder / "padim.onnx", "--device", "auto", "--overwrite")
    exported = Exported(setting.folder / "padim.onnx", device="auto")
    if exported.device != setting.device:
        yield left_out("ONNX with CUDA", "onnxruntime here has no CUDA: its build for GPUs is too large to carry")
        return
    pixels = tests.images.batch(range(len(tests)))
    given = np.resize(pixels, (batch, *pixels.shape[1:]))
    for size, figure in ((batch, "images_per_s padim, onnx"), (1, "ms_alone padim, onnx")):
        exported.batch_size = size
        seconds = _usual_s(lambda part=given[:size]: list(exported.predict(part)), setting, torch.device("cpu"))
        yield {figure: size / seconds if size > 1 else 1e3 * seconds}


def anomalibs(setting: Setting, normals: ImageSet) -> Iterator[Figures]:
    """anomalib's Padim and Patchcore on the same weights and images."""
    if importlib.util.find_spec("anomalib") is None:
        yield left_out("anomalib", "it is not installed here")
        return
    files = {split: str(setting.folder / f"{split}.npy") for split in ("train", "test")}
    for path in files.values():
        np.save(path, normals.batch(range(len(normals))))
    weights, _ = write_weights(setting.folder)
    shared = {**files, "weights": str(weights[LITE]), "dimensions": DIMENSIONS, "share": SHARE, "backbone": LITE}
    batch, count = setting.size((64, 6400), (2, 4))
    for model in THEIRS:
        if setting.is_over:
            yield left_out(f"anomalib {model}")
            continue
        wanted = json.dumps({**shared, "model": model, "device": setting.device})
        try:
            with started([sys.executable, CONTESTANTS / "anomalib_patches.py", wanted]) as contestant:
                yield {f"fit_s anomalib {model}": contestant.do("fit")["seconds"]}
                contestant.do("repeat", batch=batch, count=batch)
                many, alone = (
                    contestant.do("repeat", batch=batch, count=count),
                    contestant.do("predict", batch=1, count=20),
                )
            yield {f"images_per_s anomalib {model}": count / many["seconds"],
                   f"ms_alone anomalib {model}": 1e3 * alone["seconds"] / 20}  # fmt: skip
        except UserError as error:
            yield left_out(f"anomalib {model}", str(error))


def _usual_s(work: Callable[[], object], setting: Setting, device: torch.device) -> float:
    """The median of some times, after some to warm up."""
    times, repeats = [], setting.size(30, 1)
    for _ in range(setting.size(5, 1)):
        work()
    for _ in range(repeats):
        wait_for(device)
        start_s = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - start_s)
    return median(times)
