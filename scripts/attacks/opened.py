"""What opens the results of the commands that write: each raises an error unless they are whole."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image
from safetensors.numpy import load_file

from downstream.hub.repository import CHECKSUMS
from downstream.inspection.inspector import Inspector
from downstream.learning.versions import history_of, versions_of
from downstream.study.record import read_results, read_study
from pretrain.command import UserError
from pretrain.data.manifest import import_parquet, read_rows
from scripts.attacks.hub import REPOSITORY_NAME, TOKEN
from scripts.attacks.material import TRAIN


def opened_study(out: Path) -> None:
    study = read_study(out)
    _, missing = read_results(out, study["cells"])
    if missing:
        raise UserError(f"{missing} cells are missing.")
    opened_files("report.html")(out)


def opened_results(out: Path) -> None:
    names = [json.loads(line)["path"] for line in (out / "results.jsonl").read_text().splitlines()]
    maps = load_file(out / "maps.safetensors")
    if not names or len(set(names)) != len(names) or len(maps) != len(names):
        raise ValueError(f"{len(names)} results have {len(maps)} maps")


def opened_area(out: Path) -> None:
    figures = json.loads((out / "figures.json").read_text())
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    masks = [out / line["segmentation"] for line in lines]
    if sum(figures["confusion"].values()) != len(lines) or not all(map(Path.is_file, masks)):
        raise ValueError(f"the figures of {len(lines)} lines are of others, or masks are missing")


def opened_versions(out: Path) -> None:
    for version in versions_of(out):
        Inspector.load(version.folder)
    history_of(out)


def opened_push(out: Path) -> None:
    """What the hub has, all of one commit."""
    with httpx.Client(base_url=f"{os.environ['HF_ENDPOINT']}/{REPOSITORY_NAME}/resolve/main/") as hub:
        hub.headers["Authorization"] = f"Bearer {TOKEN}"
        for line in hub.get(CHECKSUMS).text.splitlines():
            digest, _, file = line.partition("  ")
            if hashlib.sha256(hub.get(file).content).hexdigest() != digest:
                raise ValueError(f"{file} is not of its commit")


def opened_files(*names: str) -> Callable[[Path], None]:
    """JSON, pages that end, and pictures."""

    def opened(out: Path) -> None:
        for name in names:
            if name.endswith(".json"):
                json.loads((out / name).read_text())
            elif name.endswith(".html"):
                if not (out / name).read_text().rstrip().endswith("</html>"):
                    raise ValueError(f"{name} has no end")
            else:
                with Image.open(out / name) as image:
                    image.load()

    return opened


def opened_manifest(out: Path) -> None:
    if not list(read_rows(out / "images.parquet")):
        raise ValueError("no image is listed")


def opened_evaluation(out: Path) -> None:
    images = json.loads((out / "results.json").read_text())["images"]
    if (lines := len((out / "images.csv").read_text().splitlines())) != len(images) + 1:
        raise ValueError(f"a table of {lines} lines is of {len(images)} images")


def opened_rows(out: Path) -> None:
    files = [*out.glob("results/*.parquet")]
    names = [name for file in files for name in import_parquet().read_table(file)["path"].to_pylist()]
    opened_files("summary.json", "report.html")(out)
    if len(set(names)) != len(names) or len(names) != TRAIN:
        raise ValueError(f"there are {len(names)} rows of {TRAIN} images")


def opened_triage(out: Path) -> None:
    opened_files("sheet.png")(out)
    if not [json.loads(line) for line in (out / "triage.jsonl").read_text().splitlines()]:
        raise ValueError("nothing is ranked")


def opened_images(out: Path) -> None:
    opened_files(*(path.name for path in sorted(out.glob("*.png"))))(out)
    if not any(out.glob("*.png")):
        raise FileNotFoundError("there is no image")


def opened_set(out: Path) -> None:
    found = [path for path in (out / "set").rglob("*.png") if "ground_truth" not in path.parts]
    opened_files(*(str(path.relative_to(out)) for path in found))(out)
    if not found:
        raise FileNotFoundError("there is no image")
    if len(found) != TRAIN:
        raise ValueError(f"{len(found)} of {TRAIN} images were converted")
