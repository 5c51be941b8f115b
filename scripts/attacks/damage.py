"""Files of every format that heldout reads again, damaged at random: each is refused in a sentence, or gives what it
gave."""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sqlalchemy.exc import SQLAlchemyError

from baselines.cam.method import VggCam
from baselines.restoration.run import MODEL
from downstream.audit import exported
from downstream.inspection.inspector import Inspector
from downstream.inspection.roi import read_roi
from downstream.learning.feedback import FILE, Feedback, add_feedback, digest_of, read_feedback
from downstream.learning.versions import history_of, promote, version_of
from downstream.methods.exported import Exported, probe_image
from downstream.restoration.restorer import load_restorer
from downstream.service.database import Database, ResultFilter, StoredResult, now
from downstream.stations.config import Config as Line
from downstream.stations.outbox import Outbox
from downstream.stations.reading_config import read_line
from downstream.stations.signal import Signal
from downstream.study.record import read_results, read_study
from embeddings.index import Index
from embeddings.vectors import Vectors
from pretrain.command import UserError, read_config
from pretrain.config import Demo
from pretrain.data.annotations import read_annotations
from pretrain.training.run import Run
from scripts.attacks.attack import Attack
from scripts.attacks.material import CATEGORY, Material
from scripts.attacks.writers import LOG_FILE, WRITERS, made, run_through

NESTED = b'{"a":' * 100_000


class Kind(NamedTuple):
    """What is damaged: `make` says in which folder it is, and `opened` what it gives, for a comparison. What people
    write themselves has no digest, and what came of it may be anything: of that, `opened` gives nothing."""

    make: Callable[[Material], Path]
    opened: Callable[[Path, Material], object]


class Damage(Attack):
    """One try is one damaged file, opened in this process."""

    unit = "a damaged file"

    def __init__(self, material: Material) -> None:
        self._material, self._made = material, {}

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        name = chance.choice(list(KINDS))
        kind = KINDS[name]
        if name not in self._made:
            made = kind.make(self._material)
            looked_at = shutil.copytree(made, self._material.folder / "looked at" / name)  # some are changed by a look
            self._made[name] = made, kind.opened(Path(looked_at), self._material)
            shutil.rmtree(looked_at)
        whole, expected = self._made[name]
        copied = Path(shutil.copytree(whole, folder / name))
        files = [path for path in sorted(copied.rglob("*")) if path.is_file() and path.stat().st_size]
        file = chance.choice(files)
        said = f"{name}: {file.name} {damaged(file, files, chance)}"
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = kind.opened(copied, self._material)
        except UserError:
            return None
        except SystemExit as end:  # a file of --config is refused as what is typed is
            return None if end.code == 2 else f"{said}: exit code {end.code}"
        except Exception as error:
            return f"{said}: {type(error).__name__}: {error}"
        return None if found == expected else f"{said}: it gives something else, and no word"


def scored(model: Path, material: Material) -> tuple:
    image = min((material.data / CATEGORY / "test" / "good").iterdir())
    (inspection,) = Inspector.load(model, "cpu").inspect([image])
    return inspection.score, inspection.threshold, inspection.is_defective, inspection.confidence


def vectors(folder: Path, material: Material) -> tuple:
    found = Vectors(folder)
    return found[:].tobytes(), found.records, found.digests, found.source


def make_index(material: Material) -> Path:
    rows = Vectors(material.vectors)
    Index.build(rows, rows.ids, shards=2).save(material.folder / "index")
    return material.folder / "index"


def neighbors(folder: Path, material: Material) -> tuple:
    index = Index.load(folder)
    return (
        tuple(array.tobytes() for array in index.search(Vectors(material.vectors)[:5], 3)),
        index.source,
        index.metric,
    )


def make_run(material: Material) -> Path:
    run, (module, optimizer) = Run(material.folder / "run"), small_training()
    with run.held(Demo()):
        for step in range(5):
            module(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            run.log(step, loss=0.5)
        run.save(module, optimizer, {"step": 5})
    return run.folder


def restored(folder: Path, material: Material) -> tuple:
    """Without its metrics: a line of them that is damaged is left out, and a digit that changed is drawn as it is."""
    run, (module, optimizer) = Run(folder), small_training()
    with run.held(Demo()):
        run.metrics()
        metadata = run.restore(module, optimizer)
    return metadata, [weights.detach().numpy().tobytes() for weights in module.parameters()]


def small_training() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(3, 2)
    return module, torch.optim.Adam(module.parameters())


def make_by(name: str) -> Callable[[Material], Path]:
    def make(material: Material) -> Path:
        out = material.folder / f"damaged-{name}"
        WRITERS[name].prepare(material, out)
        run_through(WRITERS[name].words(material, out))
        return out

    return make


def need(name: str) -> Callable[[Material], Path]:
    return lambda material: made(material, name)


def answered(folder: Path, material: Material) -> bytes:
    (file,) = folder.glob("model.[ox]*")
    exported = Exported(file)
    (prediction,) = exported.predict([np.ascontiguousarray(probe_image(exported.size_px, False)[0])])
    return prediction.scores.tobytes() + prediction.maps.tobytes()


def studied(folder: Path, material: Material) -> object:
    """All cells. Where one is missing the command says which, and computes it again: that is a word."""
    study = read_study(folder)
    results, missing = read_results(folder, study["cells"])
    if missing:
        raise UserError(f"{missing} cells are missing.")
    return study, [
        (cell.scores.tobytes(), cell.labels.tobytes(), cell.threshold)
        for by_category in results.values()
        for by_seed in by_category.values()
        for cell in by_seed.values()
    ]


def versions(folder: Path, material: Material) -> tuple:
    """Of all versions what they are, and of the second, which may come into use, that it may."""
    promote(folder, 2)
    found = [version_of(folder, number)._replace(folder=Path()) for number in (1, 2)]
    return found, [change._replace(at="") for change in history_of(folder)], scored(folder, material)


def reconstructed(folder: Path, material: Material) -> tuple:
    return scored(folder / CATEGORY, material)


def activated(folder: Path, material: Material) -> bytes:
    (prediction,) = VggCam.load(folder / MODEL).predict([torch.full((3, 32, 32), 0.4)])
    return prediction.scores.numpy().tobytes()


def mended(folder: Path, material: Material) -> bytes:
    return load_restorer(folder / MODEL).restore(torch.full((1, 3, 32, 32), 0.4)).numpy().tobytes()


def logged(folder: Path, material: Material) -> bool:
    """What there is of it is as it was: that the end of an export is cut off, nothing in it can say."""
    found = [entry.digest for entry in exported(folder / LOG_FILE)]
    whole = [entry.digest for entry in exported(material.folder / "damaged-audit" / LOG_FILE)]
    return found == whole[: len(found)]


def make_feedback(material: Material) -> Path:
    folder = material.folder / "feedback"
    for image in sorted((material.data / CATEGORY / "test" / "good").iterdir()):
        add_feedback(folder / FILE, Feedback(image, "false alarm", by="ann", image_digest=digest_of(image)))
    return folder


def make_drawn(material: Material) -> Path:
    """Files that people write: a region of interest, and a line."""
    folder = material.folder / "drawn"
    folder.mkdir()
    zone = {"name": "left", "include": [[[0, 0], [30, 0], [30, 60]]], "min_area_px": 2}
    (folder / "roi.json").write_text(json.dumps({"zones": [zone]}))
    station = {"name": "bolts", "source": {"type": "folder", "path": "in"}}
    (folder / "line.yaml").write_text(json.dumps({"stations": [station], "sinks": [{"type": "csv", "path": "a.csv"}]}))
    return folder


def taken(folder: Path, material: Material) -> None:
    read_line(read_config(Line, ["--config", str(folder / "line.yaml")]))
    read_roi(folder / "roi.json", (64, 64), 64)


def make_state(material: Material) -> Path:
    folder = material.folder / "state"
    outbox = Outbox(folder)
    for number in range(1, 200):
        signal = Signal(str(number), "a", number, "", "pass", "", 0.5, 1.0, "m", "1", "2026-01-31T23:59:59Z", 1.0)
        outbox.finish(signal)
    outbox.close()
    return folder


def went_on(folder: Path, material: Material) -> None:
    """A part of a page that SQLite does not look at may be another: what is said then is not compared."""
    outbox = Outbox(folder)
    try:
        outbox.last_signals(10)
        outbox.recover()
    finally:
        outbox.close()


def make_results(material: Material) -> Path:
    folder = material.folder / "results"
    folder.mkdir()
    database = Database(str(folder / "results.sqlite"))
    regions = [{"x": 1, "y": 2, "width": 3, "height": 4, "area_px": 9, "score": 0.5}]
    database.add_results(
        [
            StoredResult(
                now(), "m", "bolt", f"{number}.png", f"{number:064x}", 64, 64, 0.5, 1.0, False, 0.9, regions, 1.0
            )
            for number in range(300)
        ]
    )
    database.close()
    return folder


def listed(folder: Path, material: Material) -> None:
    """A digit of a row may be another, as of a line's."""
    database = Database(str(folder / "results.sqlite"))
    try:
        database.check()
        list(database.all_results(ResultFilter()))
    except SQLAlchemyError as error:
        raise UserError(str(error)) from None
    finally:
        database.close()


KINDS = {
    "model": Kind(lambda material: material.judging, scored),
    "vectors": Kind(lambda material: material.vectors, vectors),
    "index": Kind(make_index, neighbors),
    "run": Kind(make_run, restored),
    "export": Kind(make_by("export"), answered),
    "study": Kind(make_by("evaluate"), studied),
    "OpenVINO": Kind(need("openvino"), answered),
    "versions": Kind(need("learned"), versions),
    "auto-encoder": Kind(make_by("autoencoder"), reconstructed),
    "VGG-CAM": Kind(make_by("vgg-cam"), activated),
    "restorer": Kind(need("restorer"), mended),
    "SADNet": Kind(make_by("sadnet"), mended),
    "audit": Kind(make_by("audit"), logged),
    "feedback": Kind(make_feedback, lambda folder, _: read_feedback(folder) is None),
    "annotations": Kind(need("annotated"), lambda folder, _: read_annotations(folder) is None),
    "drawn": Kind(make_drawn, taken),
    "line": Kind(make_state, went_on),
    "results": Kind(make_results, listed),
}


def damaged(file: Path, others: list[Path], chance: random.Random) -> str:
    """Damage a file; says how."""
    data = bytearray(file.read_bytes())
    how = chance.choice(("flipped", "cut", "emptied", "swapped", "noise", "nested", "doubled", "zeros"))
    at = chance.randrange(len(data))
    if how == "flipped":
        data[at] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "emptied":
        data.clear()
    elif how == "swapped":
        data = bytearray(chance.choice(others).read_bytes())
    elif how == "noise":
        length = min(64, len(data) - at)
        data[at : at + length] = chance.randbytes(length)
    elif how == "nested":
        data = bytearray(NESTED)
    elif how == "doubled":
        data = data * 2
    else:
        data[at:] = bytes(len(data) - at)
    file.write_bytes(data)
    return f"{how} at {at} of {file.stat().st_size}"
