"""The commands that write: how each is typed, what is there before it, and what opens its result."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import load_file

from baselines.restoration.run import MODEL
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported
from downstream.restoration.restorer import load_restorer
from downstream.study.record import read_results, read_study
from embeddings.index import Index
from embeddings.vectors import Vectors
from pretrain.encoder import load_encoder
from scripts.attacks.material import CATEGORY, Material, extracting, fitting, pretraining


class Writer(NamedTuple):
    """A command that writes into `out`: its `words`; `opened` raises an error unless its result is whole; what of the
    material lies in `out` before it, if anything; and its exit codes where all is well."""

    words: Callable[[Material, Path], tuple]
    opened: Callable[[Path], object]
    begins_with: str | None = None
    ends_with: tuple[int, ...] = (0,)

    @property
    def replaces(self) -> bool:
        """Whether what is there before is an older result, which may be opened at any time."""
        return self.begins_with == "model"

    def prepare(self, material: Material, out: Path) -> None:
        if self.begins_with:
            shutil.copytree(material.folder / self.begins_with, out)


def drawing(material: Material, out: Path) -> tuple:
    return ("pretrain/demo.py", "--out", out, "--categories", CATEGORY, "--train", "6", "--good", "1",
            "--defective", "1", "--workers", "1")  # fmt: skip


def building(material: Material, out: Path) -> tuple:
    return ("embeddings/build.py", "--vectors", out, "--rebuild", "--kind", "flat")


def inspecting(material: Material, out: Path) -> tuple:
    images = material.data / CATEGORY / "test" / "good"
    return ("downstream/detect.py", "run", images, "--model", material.model, "--out", out, "--overlays", "all",
            "--maps")  # fmt: skip


def exporting(material: Material, out: Path) -> tuple:
    return ("downstream/export.py", material.model, "--to", "onnx", "--out", out / "model.onnx", "--overwrite")


def studying(material: Material, out: Path) -> tuple:
    small = ("--methods", "mean", "--encoder", "none", "--seeds", "0", "--size-px", "32", "--device", "cpu")
    return ("downstream/evaluate.py", "--data", material.data, "--protocol", "one-class", "--test", CATEGORY, *small,
            "--out", out)  # fmt: skip


def restoring(material: Material, out: Path) -> tuple:
    small = ("--input-size", "32", "--crop-px", "32", "--steps", "2", "--channels", "8", "--blocks", "1")
    kept = ("--checkpoint-minutes", "0.001", "--device", "cpu", "--out", out)
    of = ("--data", material.data, "--train", CATEGORY, "--encoder", material.encoder)
    return ("downstream/restore.py", "train", *of, *small, *kept)


def surveying(material: Material, out: Path) -> tuple:
    return ("pretrain/survey.py", "--data", material.data, "--json", out / "survey.json", "--sheet", out / "sheet.png")


def opened_study(out: Path) -> None:
    study = read_study(out)
    _, missing = read_results(out, study["cells"])
    if missing or not (out / "report.html").read_text().rstrip().endswith("</html>"):
        raise ValueError(f"{missing} cells or the end of the report are missing")


def opened_results(out: Path) -> None:
    names = [json.loads(line)["path"] for line in (out / "results.jsonl").read_text().splitlines()]
    maps = load_file(out / "maps.safetensors")
    if not names or len(set(names)) != len(names) or len(maps) != len(names):
        raise ValueError(f"{len(names)} results have {len(maps)} maps")


WRITERS = {
    "fit": Writer(fitting, Inspector.load, begins_with="model"),
    "extract": Writer(extracting, lambda out: Vectors(out)[:]),
    "pretrain": Writer(pretraining, lambda out: load_encoder(out / "encoder.safetensors")),
    "demo": Writer(drawing, lambda out: json.loads((out / "demo.json").read_text())),
    "build": Writer(building, lambda out: Index.load(out / "index"), begins_with="vectors"),
    "run": Writer(inspecting, opened_results, ends_with=(0, 1)),
    "export": Writer(exporting, lambda out: Exported(out / "model.onnx")),
    "evaluate": Writer(studying, opened_study),
    "restore": Writer(restoring, lambda out: load_restorer(out / MODEL)),
    "survey": Writer(surveying, lambda out: json.loads((out / "survey.json").read_text())),
}
