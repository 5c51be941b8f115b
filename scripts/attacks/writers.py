"""The commands that write: how each is typed, what is there before it, and what opens its result."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from baselines.cam.method import VggCam
from baselines.restoration.run import MODEL
from downstream.audit import exported
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported
from downstream.restoration.restorer import load_restorer
from downstream.restoration.table import cell_file, read_cell
from downstream.service.audit.log import add_change
from downstream.service.database import Database
from embeddings.index import Index
from embeddings.vectors import Vectors
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place
from pretrain.encoder import load_encoder
from scripts.attacks.hub import REPOSITORY_NAME
from scripts.attacks.material import CATEGORY, SMALL, Material, command, extracting, fitting, pretraining
from scripts.attacks.opened import (
    opened_area,
    opened_evaluation,
    opened_files,
    opened_images,
    opened_manifest,
    opened_push,
    opened_results,
    opened_rows,
    opened_set,
    opened_study,
    opened_triage,
    opened_versions,
)

LOG_FILE = "audit.jsonl"
OTHER = "leather"  # than CATEGORY, of the same images


class Writer(NamedTuple):
    """A command that writes into `out`: its `words`; `opened` raises an error unless its result is whole; what lies in
    `out` before it, of those that are `made`; its exit codes where all is well, or where it has nothing left to do; and
    whether what is there before is an older result, which may be opened at any time."""

    words: Callable[[Material, Path], tuple]
    opened: Callable[[Path], object]
    begins_with: str | None = None
    ends_with: tuple[int, ...] = (0,)
    replaces: bool = False

    def prepare(self, material: Material, out: Path) -> None:
        if self.begins_with:
            shutil.copytree(made(material, self.begins_with), out)


def drawing(material: Material, out: Path) -> tuple:
    return ("pretrain/demo.py", "--out", out, "--categories", CATEGORY, "--train", "6", "--good", "1",
            "--defective", "1", "--workers", "1")  # fmt: skip


def building(material: Material, out: Path) -> tuple:
    return ("embeddings/build.py", "--vectors", out, "--rebuild", "--kind", "flat", "--shards", "2")


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


def validating(material: Material, out: Path) -> tuple:
    return ("downstream/area.py", "validate", "--model", out, "--data", material.data, "--area", "4",
            "--device", "cpu")  # fmt: skip


def testing_area(material: Material, out: Path) -> tuple:
    return ("downstream/area.py", "test", "--model", material.model, "--data", material.data, "--area", "4",
            "--threshold", "5", "--overlays", "all", "--device", "cpu", "--out", out)  # fmt: skip


def triaging(material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "triage", material.data, "--category", CATEGORY, "--encoder", material.encoder,
            "--size-px", "64", "--device", "cpu", "--out", out)  # fmt: skip


def learning(material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "learn", "--model", out, "--feedback", made(material, "sorted"), "--device", "cpu")


def promoting(material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "promote", "--model", out, "--version", "2")


def pulling(material: Material, out: Path) -> tuple:
    made(material, "pushed")
    return ("downstream/pull.py", REPOSITORY_NAME, "--out", out, "--overwrite")


def pushing(material: Material, out: Path) -> tuple:
    return ("downstream/push.py", material.model, REPOSITORY_NAME)


def auditing(material: Material, out: Path) -> tuple:
    return ("downstream/audit.py", "export", "--results", made(material, "audited.sqlite"), "--out", out / LOG_FILE)


def embedded(command: str, *options: object) -> Callable[[Material, Path], tuple]:
    """A command on the vectors."""
    return lambda material, out: (f"embeddings/{command}.py", "--vectors", material.vectors, "--encoder",
                                  material.encoder, "--device", "cpu",
                                  *(out / each if isinstance(each, Path) else each for each in options))  # fmt: skip


def searching(material: Material, out: Path) -> tuple:
    files = ("--sheet", out / "sheet.html", "--json", out / "found.json")
    return ("embeddings/search.py", material.data / CATEGORY / "test" / "good", *embedded("search")(material, out)[1:],
            *files)  # fmt: skip


def classifying(material: Material, out: Path) -> tuple:
    return ("embeddings/knn.py", "--data", material.data, "--encoder", material.encoder, "--size-px", "64", "--device",
            "cpu", "--json", out / "found.json")  # fmt: skip


def reconstructing(material: Material, out: Path) -> tuple:
    small = ("--model", "vae", "--size", "32", "--width", "4", "--epochs", "2", "--batch_size", "4", "--device", "cpu")
    return ("baselines/autoencoder.py", "--data", material.data, "--category", CATEGORY, *small,
            "--checkpoint-minutes", "0", "--out", out)  # fmt: skip


def mapping(material: Material, out: Path) -> tuple:
    small = ("--weights", "random", "--width", "0.0625", "--size-px", "32", "--batch-size", "8", "--epochs", "2")
    return ("baselines/vgg_cam.py", "train", "--data", material.data, "--train", f"{CATEGORY},leather", *small,
            "--checkpoint-minutes", "0", "--device", "cpu", "--out", out)  # fmt: skip


def denoising(material: Material, out: Path) -> tuple:
    small = ("--input-size", "32", "--crop-px", "32", "--batch-size", "1", "--steps", "2")
    return ("baselines/sadnet.py", "train", "--data", material.data, "--train", CATEGORY, *small,
            "--checkpoint-minutes", "0.001", "--device", "cpu", "--out", out)  # fmt: skip


def mending(material: Material, out: Path) -> tuple:
    images = material.data / CATEGORY / "test" / "good"
    return ("downstream/restore.py", "restore", images, "--model", made(material, "restorer"), "--device", "cpu",
            "--out", out)  # fmt: skip


def converting(material: Material, out: Path) -> tuple:
    return ("pretrain/convert.py", "--data", made(material, "annotated"), "--out", out / "set")


def exporting_openvino(material: Material, out: Path) -> tuple:
    return ("downstream/export.py", material.model, "--to", "openvino", "--out", out / "model.xml", "--overwrite")


def listing(material: Material, out: Path) -> tuple:
    return ("pretrain/manifest.py", material.data, "--out", out / "images.parquet")


def choosing_area(material: Material, out: Path) -> tuple:
    return ("downstream/area.py", "finetune", "--model", made(material, "with validation images"), "--data",
            material.data, "--synthetic", "8", "--device", "cpu", "--out", out)  # fmt: skip


def evaluating(material: Material, out: Path) -> tuple:
    return ("downstream/restore.py", "evaluate", "--model", made(material, "restorer"), "--data", material.data,
            "--test", OTHER, "--shown", "1", "--device", "cpu", "--out", out)  # fmt: skip


def studying_restorers(material: Material, out: Path) -> tuple:
    small = (
        "--rows",
        "random",
        "--seeds",
        "0",
        "--steps",
        "2",
        "--input-size",
        "32",
        "--crop-px",
        "32",
        "--images",
        "2",
    )
    return ("downstream/restore.py", "study", "--data", material.data, "--train", CATEGORY, "--test", OTHER,
            "--encoder", "none", *small, "--device", "cpu", "--out", out)  # fmt: skip


def rolling_back(material: Material, out: Path) -> tuple:
    return ("downstream/detect.py", "roll-back", "--model", out)


def of_manifest(program: str, *options: object) -> Callable[[Material, Path], tuple]:
    """A command on a manifest of good images, in parts of a few."""
    return lambda material, out: (*program.split(), "--data", made(material, "good.parquet"), "--part-images", "4",
                                  "--device", "cpu", "--out", out, *options)  # fmt: skip


def inspecting_manifest(material: Material, out: Path) -> tuple:
    words = of_manifest("downstream/detect.py run", "--model", material.model, "--overlays", "all")
    return words(material, out)


def extracting_manifest(material: Material, out: Path) -> tuple:
    return of_manifest("embeddings/extract.py", "--encoder", material.encoder, "--size-px", "64")(material, out)


def comparing(material: Material, out: Path) -> tuple:
    study = made(material, "study")
    return ("downstream/compare.py", "--first", study, "--second", study, "--json", out / "found.json")


def make_sorted(material: Material, folder: Path) -> None:
    """Images that somebody sorted, as feedback."""
    for kind, name in (("good", "good"), ("defective", "[!g]*")):
        (folder / kind).mkdir(parents=True)
        for image in sorted((material.data / CATEGORY / "test").glob(f"{name}/*.png")):
            shutil.copy(image, folder / kind / f"{image.parent.name}-{image.name}")


def make_audited(material: Material, file: Path) -> None:
    database = Database(str(file))
    for number in range(50):
        with database.alone() as connection:
            add_change(connection, "ann", "threshold", "bolt", number, number + 1)
    database.close()


def make_annotated(material: Material, folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate(sorted((material.data / CATEGORY / "train" / "good").iterdir())):
        shutil.copy(image, folder)
        shape = {"label": "spot", "shape_type": "rectangle", "points": [[10, 10], [30, 40]]}
        said = {"imagePath": image.name, "shapes": [shape] * (number % 2)}
        (folder / f"{image.stem}.json").write_text(json.dumps(said))


def make_manifest(material: Material, file: Path) -> None:
    write_manifest(Place.of(str(material.data / CATEGORY / "train" / "good")), file)


def make_learned(material: Material, folder: Path) -> None:
    shutil.copytree(material.model, folder)
    run_through(learning(material, folder))


def make_promoted(material: Material, folder: Path) -> None:
    shutil.copytree(made(material, "learned"), folder)
    run_through(promoting(material, folder))


def made_by(words: Callable[[Material, Path], tuple]) -> Callable[[Material, Path], None]:
    return lambda material, out: run_through(words(material, out))


def run_through(words: tuple) -> None:
    """Raises RuntimeError where a command fails."""
    if (done := command(*words)).returncode:
        raise RuntimeError(f"there is nothing to attack: {done.stderr[-500:]}")


def made(material: Material, name: str) -> Path:
    """A part of the material that is made when it is first needed."""
    path = material.folder / name
    if not path.exists():
        MADE[name](material, path)
    return path


MADE: dict[str, Callable[[Material, Path], None]] = {
    "sorted": make_sorted,
    "audited.sqlite": make_audited,
    "annotated": make_annotated,
    "good.parquet": make_manifest,
    "learned": make_learned,
    "promoted": make_promoted,
    "with validation images": made_by(lambda material, out: (*fitting(material, out), "--validation-share", "0.25")),
    "study": made_by(studying),
    "restorer": made_by(restoring),
    "openvino": made_by(exporting_openvino),
    "pushed": made_by(pushing),
}
WRITERS = {
    "fit": Writer(fitting, Inspector.load, begins_with="model", replaces=True),
    "extract": Writer(extracting, lambda out: Vectors(out)[:]),
    "pretrain": Writer(pretraining, lambda out: load_encoder(out / "encoder.safetensors")),
    "demo": Writer(drawing, lambda out: json.loads((out / "demo.json").read_text())),
    "build": Writer(building, lambda out: Index.load(out / "index"), begins_with="vectors"),
    "run": Writer(inspecting, opened_results, ends_with=(0, 1)),
    "fit manifest": Writer(of_manifest("downstream/detect.py fit", *SMALL), Inspector.load, "model", replaces=True),
    "run manifest": Writer(inspecting_manifest, opened_rows, ends_with=(0, 1)),
    "extract manifest": Writer(extracting_manifest, lambda out: Vectors(out)[:]),
    "export": Writer(exporting, lambda out: Exported(out / "model.onnx")),
    "evaluate": Writer(studying, opened_study),
    "restore": Writer(restoring, lambda out: load_restorer(out / MODEL)),
    "survey": Writer(surveying, opened_files("survey.json", "sheet.png")),
    "area validate": Writer(validating, Inspector.load, begins_with="with validation images", replaces=True),
    "area test": Writer(testing_area, opened_area),
    "triage": Writer(triaging, opened_triage),
    "learn": Writer(learning, opened_versions, begins_with="model", replaces=True),
    "promote": Writer(promoting, opened_versions, begins_with="learned", ends_with=(0, 2), replaces=True),
    "push": Writer(pushing, opened_push),
    "pull": Writer(pulling, Inspector.load, begins_with="model", replaces=True),
    "audit": Writer(auditing, lambda out: exported(out / LOG_FILE)),
    "search": Writer(searching, opened_files("sheet.html", "found.json")),
    "duplicates": Writer(
        embedded("duplicates", "--sheet", Path("sheet.html"), "--json", Path("found.json")),
        opened_files("sheet.html", "found.json"),
    ),
    "outliers": Writer(
        embedded("outliers", "--sheet", Path("sheet.png"), "--json", Path("found.json")),
        opened_files("sheet.png", "found.json"),
    ),
    "image-map": Writer(
        embedded("image_map", "--method", "pca", "--page", Path("map.html"), "--png", Path("map.png")),
        opened_files("map.html", "map.png"),
    ),
    "knn": Writer(classifying, opened_files("found.json")),
    "autoencoder": Writer(reconstructing, lambda out: Inspector.load(out / CATEGORY)),
    "vgg-cam": Writer(mapping, lambda out: VggCam.load(out / MODEL)),
    "sadnet": Writer(denoising, lambda out: load_restorer(out / MODEL)),
    "restored": Writer(mending, opened_images),
    "convert": Writer(converting, opened_set, ends_with=(0, 2)),
    "export openvino": Writer(
        exporting_openvino, lambda out: Exported(out / "model.xml"), begins_with="openvino", replaces=True
    ),
    "compare": Writer(comparing, opened_files("found.json")),
    "manifest": Writer(listing, opened_manifest),
    "area finetune": Writer(
        choosing_area, opened_files("regions.png", "sizes.png", "areas.png", "samples.png", "finetune.json")
    ),
    "restore evaluate": Writer(evaluating, opened_evaluation),
    "restore study": Writer(studying_restorers, lambda out: read_cell(cell_file(out, "random", 0))),
    "roll-back": Writer(rolling_back, opened_versions, begins_with="promoted", ends_with=(0, 2), replaces=True),
}
# The other commands, with the reason why no file of theirs is attacked.
NO_WRITERS = {
    "pretrain/doctor.py": "only looks",
    "downstream/detect.py versions": "only reads",
    "downstream/audit.py verify": "only reads",
    "downstream/serve.py": "attacked by parts of its own: service-kills, http, postgres, soak",
    "downstream/line.py": "attacked by a part of its own: line-kills",
    "baselines/sadnet.py evaluate": "the function of restore.py evaluate",
    "baselines/sadnet.py restore": "the function of restore.py restore",
    "baselines/vgg_cam.py test": "writes figures and pictures as area.py test does",
}
