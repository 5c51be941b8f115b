"""A generated stand-in for MVTec AD: 15 products under its category names, with defects and exact masks, seeded.

    python pretrain/demo.py --out data/demo        # 1500 images, about half a minute on two cores

Made so that a person sees the plain defects at once and the faint ones with care; a random encoder finds some of them.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from pretrain.config import Demo

    start("pretrain.demo:main", Demo)

import json
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain.command import UserError, nearest
from pretrain.config import Demo
from pretrain.demo_products import hardware, molded, textures
from pretrain.demo_products.defects import Harm
from pretrain.demo_products.scene import Light, changed, lit, photograph
from pretrain.files import alone, whole_folder
from pretrain.progress import Progress
from pretrain.reading import read_json
from pretrain.workers import usable_cores, worker_pool

GENERATOR = 1  # raised whenever an image of the same seed would come out differently
MARKER = "demo.json"
DEFECTS = {
    "bottle": ("broken_large", "broken_small", "contamination", "scratch"),
    "cable": ("bent_wire", "cable_swap", "cut_insulation", "missing_wire", "poke_insulation"),
    "capsule": ("crack", "faulty_imprint", "poke", "scratch", "squeeze"),
    "carpet": ("color", "cut", "hole", "thread"),
    "grid": ("bent", "broken", "contamination", "glue"),
    "hazelnut": ("crack", "cut", "hole", "print"),
    "leather": ("color", "cut", "fold", "poke"),
    "metal_nut": ("bent", "color", "dent", "scratch"),
    "pill": ("color", "contamination", "crack", "faulty_imprint", "scratch"),
    "screw": ("bent_tip", "rust", "scratch_head", "scratch_neck", "thread_damage"),
    "tile": ("crack", "glue_strip", "oil", "rough"),
    "toothbrush": ("bent_bristles", "contamination", "missing_bristles", "stray_bristle"),
    "transistor": ("bent_lead", "cut_lead", "damaged_case", "misplaced"),
    "wood": ("color", "hole", "liquid", "scratch"),
    "zipper": ("broken_teeth", "fabric_border", "fabric_interior", "split_teeth", "squeezed_teeth"),
}
CATEGORIES = tuple(DEFECTS)
SCENE, LIGHT, HARM, SENSOR, SEVERITY = range(5)  # streams apart, so that a defect moves no other random draw


def main(config: Demo) -> None:
    """Make the set that `config` describes."""
    make(**{name: getattr(config, name) for name in Demo.__dataclass_fields__})


def render_image(
    category: str, split: str, defect: str, index: int, seed: int, harmed: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One image, a pure function of its arguments: image (256, 256, 3) uint8, mask (256, 256) bool, empty for "good".

    `harmed=False` gives the clean twin of a defective image: same product, pose, light and noise, without the defect.
    """
    if category not in DEFECTS:
        raise UserError(f"the demo set has no category {category}; {nearest(category, CATEGORIES)}")
    if defect not in ("good", *DEFECTS[category]):
        raise UserError(
            f"the demo set has no {category} with defect {defect}; {nearest(defect, ('good', *DEFECTS[category]))}"
        )
    draw = {
        "bottle": molded.bottle,
        "cable": hardware.cable,
        "capsule": molded.capsule,
        "carpet": textures.carpet,
        "grid": textures.wire_grid,
        "hazelnut": molded.hazelnut,
        "leather": textures.leather,
        "metal_nut": hardware.metal_nut,
        "pill": molded.pill,
        "screw": hardware.screw,
        "tile": textures.tile,
        "toothbrush": molded.toothbrush,
        "transistor": hardware.transistor,
        "wood": textures.wood,
        "zipper": hardware.zipper,
    }[category]

    def stream(number: int) -> np.random.Generator:
        return _stream(category, split, defect, index, seed, number)

    surface = draw(stream(SCENE), Harm("good", 0.0, stream(HARM)))
    mask = np.zeros(surface.height.shape, bool)
    if defect != "good":
        harm = Harm(defect, severity(category, split, defect, index, seed), stream(HARM))
        damaged = draw(stream(SCENE), harm)
        mask = changed(surface, damaged)
        surface = damaged if harmed else surface
    lamp = Light.draw(stream(LIGHT))
    return photograph(lit(surface, lamp), lamp, stream(SENSOR)), mask


def severity(category: str, split: str, defect: str, index: int, seed: int) -> float:
    """How plain the defect of an image is: 0 hardly seen, 1 obvious."""
    return _stream(category, split, defect, index, seed, SEVERITY).uniform()


def _stream(category: str, split: str, defect: str, index: int, seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{category}/{split}/{defect}".encode()), index, number])


def is_demo(folder: Path) -> bool:
    """Whether a folder holds a demo set, whatever its seed and size."""
    return _marker(folder).get("what") == "demo data"


def make(
    out: Path,
    seed: int = 0,
    categories: tuple[str, ...] = (),
    train: int = 60,
    good: int = 12,
    defective: int = 7,
    workers: int | None = None,
) -> None:
    """Write a demo set to `out`, whole or not at all. Arguments as in `Demo`.

    Raises:
        UserError: an unknown category, a negative count, or `out` exists and is not a demo set.
    """
    out, categories = Path(out), tuple(categories) or CATEGORIES
    for name in categories:
        if name not in DEFECTS:
            raise UserError(f"the demo set has no category {name}; {nearest(name, CATEGORIES)}")
    for name, value in {"seed": seed, "train": train, "good": good, "defective": defective}.items():
        if value < 0:
            raise UserError(f"{name} is {value}; give 0 or more.")
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers cannot draw: give 1 or more, or leave it out for one per core.")
    marker = {"what": "demo data", "generator": GENERATOR, "seed": seed, "categories": list(categories)}
    marker |= {"train": train, "good": good, "defective": defective}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with alone(out.parent / f".{out.name}.lock", f"another process is drawing {out}; waiting for it."):
            if _marker(out) == marker:
                print(f"{out} already holds this demo data (seed {seed}); left alone.", file=sys.stderr)
                return
            if out.exists() and not is_demo(out) and (not out.is_dir() or any(out.iterdir())):
                raise UserError(f"{out} exists and is not a demo set: move it away, or draw the demo set elsewhere.")
            own = {MARKER, *_marker(out).get("categories", ())}
            if out.is_dir() and (foreign := sorted(path.name for path in out.iterdir() if path.name not in own)):
                raise UserError(
                    f"{out} is an older demo set that also holds {', '.join(foreign)}: move that away first."
                )
            _make_whole(out, marker, list(_jobs(categories, train, good, defective)), seed, workers)
    except OSError as error:
        raise UserError(
            f"the demo data cannot be written to {out} ({error}); make room or choose another folder."
        ) from None


def _make_whole(out: Path, marker: dict, jobs: list["Job"], seed: int, workers: int | None) -> None:
    """Draw beside `out`, which the set takes the place of once it is whole; the lock is held."""
    replaced = {path.name for path in out.iterdir()} if out.is_dir() else ()
    with whole_folder(out, replaced) as unfinished:
        for folder in {path for job in jobs for path in (_image_path(*job).parent, _mask_path(*job).parent)}:
            (unfinished / folder).mkdir(parents=True, exist_ok=True)
        _draw_all(unfinished, seed, jobs, workers or usable_cores())
        (unfinished / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
    print(f"{out}: {len(jobs)} generated images of {len(marker['categories'])} products, seed {seed}", file=sys.stderr)


Job = tuple[str, str, str, int]  # category, split, defect, index


def _marker(folder: Path) -> dict:
    try:
        return read_json(Path(folder) / MARKER)
    except (OSError, ValueError):
        return {}


def _jobs(categories: tuple[str, ...], train: int, good: int, defective: int) -> Iterator[Job]:
    for category in categories:
        counts = [("train", "good", train), ("test", "good", good)]
        counts += [("test", defect, defective) for defect in DEFECTS[category]]
        for split, defect, count in counts:
            yield from ((category, split, defect, index) for index in range(count))


def _image_path(category: str, split: str, defect: str, index: int) -> Path:
    return Path(category, split, defect, f"{index:03d}.png")


def _mask_path(category: str, split: str, defect: str, index: int) -> Path:
    """Where an image's mask goes; a good one has none, and this is its own path."""
    image = _image_path(category, split, defect, index)
    return image if defect == "good" else Path(category, "ground_truth", defect, f"{index:03d}_mask.png")


def _draw(folder: Path, seed: int, job: Job) -> None:
    image, mask = render_image(*job, seed)
    quick = {"compress_level": 1, "compress_type": zlib.Z_RLE}  # noise holds no repeats worth searching for
    Image.fromarray(image).save(folder / _image_path(*job), **quick)
    if _mask_path(*job) != _image_path(*job):
        Image.fromarray(mask.astype("uint8") * 255).save(folder / _mask_path(*job), **quick)


def _draw_all(folder: Path, seed: int, jobs: list[Job], workers: int) -> None:
    """Draw and write every job's image; one worker draws in this process."""
    draw = partial(_draw, folder, seed)
    with Progress("drawing demo images", len(jobs)) as progress:
        if workers == 1:
            for job in jobs:
                draw(job)
                progress.advance()
            return
        with worker_pool(min(workers, len(jobs) or 1)) as pool:
            try:
                for _ in pool.map(draw, jobs, chunksize=8):
                    progress.advance()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
