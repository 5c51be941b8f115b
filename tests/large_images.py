"""What memory an image of a line-scan camera takes: `fit` and `run` on images of so many pixels a side, made here.

    python tests/large_images.py FOLDER 2048 4096 [detect.py fit's options]

prints a line of JSON for each side in turn, all of one process: its peak so far, and what it found. The smallest side
says what torch and an encoder take.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from downstream.detect import run
from downstream.inspection.config import Fit, Run
from downstream.inspection.fitting import fit
from pretrain.command import run_commands

# No multiple of a patch, so that an image shows the texture at every place of a patch, as a fabric does.
CELL_PX, DEFECT_PX = 61, 12


def surface(side_px: int, seed: int) -> np.ndarray:
    """A texture that is the same everywhere, and starts elsewhere in each image; towards the border it fades, since
    three images do not show how all its cuts look there."""
    cell = np.random.default_rng(0).integers(110, 140, (CELL_PX // 8, CELL_PX // 8, 3), dtype=np.uint8)
    cell = np.asarray(Image.fromarray(cell).resize((CELL_PX, CELL_PX), Image.Resampling.BICUBIC))
    down, across = np.random.default_rng(seed).integers(0, CELL_PX, 2)
    times = -(-side_px // CELL_PX)
    pixels = np.roll(np.tile(cell, (times, times, 1))[:side_px, :side_px], (down, across), (0, 1))
    inwards = np.minimum(np.arange(side_px), np.arange(side_px)[::-1]) / (side_px // 8)
    mean = int(cell.mean())
    for near in np.flatnonzero(inwards < 1):  # row by row: of a large image, copies take gigabytes
        for part in (pixels[near], pixels[:, near]):
            part[:] = mean + inwards[near] * (part - np.float32(mean))
    return pixels


def inspect(folder: Path, side_px: int, options: list[str]) -> dict:
    """Three good images and one with a defect of 12 px: whether it is found, and where."""
    (folder / "good").mkdir(parents=True)
    for seed in (1, 2, 3):
        Image.fromarray(surface(side_px, seed)).save(folder / "good" / f"{seed}.png", compress_level=1)
    pixels, at = surface(side_px, 4), (int(0.3 * side_px), int(0.7 * side_px))
    pixels[at[1] : at[1] + DEFECT_PX, at[0] : at[0] + DEFECT_PX] = 10
    Image.fromarray(pixels).save(folder / "bad.png", compress_level=1)
    del pixels
    commands, common = {"fit": (fit, Fit), "run": (run, Run)}, ["--device", "cpu"]
    data = ["--data", str(folder / "good"), "--size-px", "native"]
    assert run_commands(commands, ["fit", *data, "--out", str(folder / "model"), *common, *options]) == 0
    fitted = peak_bytes()
    model = ["--model", str(folder / "model"), "--out", str(folder / "out")]
    memory = [option for option in options if option.startswith("--memory-gb")]
    code = run_commands(commands, ["run", str(folder / "bad.png"), *model, *common, *memory])
    (line,) = map(json.loads, (folder / "out" / "results.jsonl").read_text().splitlines())
    boxes = [region["box"] for region in line["regions"]]
    is_found = any(box[0] <= at[0] + 6 < box[2] and box[1] <= at[1] + 6 < box[3] for box in boxes)
    return {"side_px": side_px, "fit_bytes": fitted, "run_bytes": peak_bytes(), "exit": code, "is_found": is_found}


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sides = [int(argument) for argument in sys.argv[2:] if argument.isdigit()]
    options = [argument for argument in sys.argv[2 + len(sides) :]]
    for side in sides:
        print("measured", json.dumps(inspect(Path(sys.argv[1]) / str(side), side, options)), flush=True)
