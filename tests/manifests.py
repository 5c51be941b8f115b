"""Inspection of a manifest, as the tests of it need it."""

from pathlib import Path

from fitted_models import run_detect
from PIL import Image

from pretrain.data.manifest import import_parquet


def images_to_inspect(folder: Path, demo_folder: Path) -> Path:
    """Two dozen images, some with defects, and two files that are none."""
    paths = sorted((demo_folder / "hazelnut").rglob("*.png"))
    paths = [path for path in paths if "ground_truth" not in path.parts]
    for number, path in enumerate(paths[:24]):
        target = folder / f"day {number % 3}" / f"{number:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(path).convert("RGB")
        if number % 8 == 5:
            image.paste((255, 0, 255), (100, 60, 140, 110))
        image.save(target)
    (folder / "day 1" / "bad.png").write_bytes(b"no image")
    (folder / "day 2" / "empty.png").write_bytes(b"")
    return folder


def run_manifest(data: object, model: Path, out: object, *more: object) -> int:
    return run_detect("run", "--data", data, "--model", model, "--out", out, "--part-images", 4, *more)


def rows_of(out: Path) -> list[dict]:
    """All rows of results, in the order of paths."""
    rows = [row for file in (out / "results").iterdir() for row in import_parquet().read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: row["path"])


def files_of(out: Path) -> dict[str, bytes]:
    """What was written, and the time it was, of what is not written at each end."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
