"""A process for test_replaced_outputs.py, in which everything that is written in place of an older one is killed.

    python killed_writers.py FOLDER

Before each step that makes, links, renames, flushes or removes a file or folder, a child that replaces an older output
is killed, and others have no room: then the old one is whole or the new one is, and the next process replaces it and
leaves nothing else. It prints for each output how many steps there were.
"""

import json
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from dying import dies_at, has_room  # noqa: E402

from baselines.contract.model_folder import check_parts, parts_of, write_metadata, write_model  # noqa: E402
from downstream.exporting.openvino_file import take_place  # noqa: E402
from downstream.inspection.inspection import Inspection  # noqa: E402
from downstream.inspection.interchange import FORMATS  # noqa: E402
from downstream.inspection.results import DetectResults  # noqa: E402
from downstream.methods.exported import _weights_of, file_digest, named_in  # noqa: E402
from embeddings.index import Index  # noqa: E402
from pretrain import files  # noqa: E402
from pretrain.data.images import Record  # noqa: E402
from pretrain.demo import is_demo, make  # noqa: E402
from pretrain.files import NO_DIGEST, link_or_copy, read_tensors, whole_folder, write_json, write_tensors  # noqa: E402
from pretrain.reading import read_json  # noqa: E402
from pretrain.training.run import Run  # noqa: E402

ROOMS = (0, 20)  # bytes of each file


class Output(NamedTuple):
    """`write` puts the one of a number, 1 or 2, into a folder; `read` says whose number is there, and raises an error
    unless all of it is."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def same(*numbers: int) -> int:
    (number,) = set(map(int, numbers))
    return number


class Method:
    """As far as a model's folder is concerned."""

    def __init__(self, number: int) -> None:
        self.number = number

    def save(self, folder: Path) -> None:
        for name in ("method.safetensors", "encoder.safetensors"):
            write_tensors(folder / name, {"number": torch.full((99,), self.number)}, {})


def read_model(folder: Path) -> int:
    check_parts(folder, parts := parts_of(folder))
    numbers = [read_tensors(folder / name)[0]["number"][0] for name in parts]
    return same(read_json(folder / "inspector.json")["number"], *numbers)


def write_rule(folder: Path, number: int) -> None:
    """As area.py validate and PUT /api/threshold do."""
    folder.mkdir(exist_ok=True)
    write_metadata(folder, number=number, normal_scores=[0.1] * 99)


def write_index(folder: Path, number: int) -> None:
    rows = np.eye(8, dtype=np.float32) * number
    Index.build(rows, np.arange(8) + number, metric="l2").save(folder, replace=True)


def read_index(folder: Path) -> int:
    found = Index.load(folder).search(np.zeros((1, 8), np.float32), 1)
    return same(found.ids.min(), round(float(found.distances.max())))


def inspected(number: int) -> tuple[Inspection, Record]:
    anomaly_map = np.full((4, 4), number, np.float32)
    found = Inspection(Path("a.png"), 4, 4, float(number), 9.0, False, 0.8, 1.0, map_threshold=9.0,
                       anomaly_map=anomaly_map)  # fmt: skip
    return found, Record(found.path, "nut", "test", "good")


def write_results(folder: Path, number: int) -> None:
    """The first run keeps maps and tables for other programs, the second only maps."""
    with DetectResults(folder, "none", True, formats=tuple(FORMATS)[: 9 * (number == 1)]) as results:
        for _ in range(number):
            results.add(*inspected(number))


def read_results(folder: Path) -> int:
    """Maps and tables may be missing for a moment, but are never another run's."""
    scores = [json.loads(line)["score"] for line in (folder / "results.jsonl").read_text().splitlines()]
    if (folder / "maps.safetensors").is_file():
        scores += [float(each.max()) for each in read_tensors(folder / "maps.safetensors")[0].values()]
    if any((folder / name).is_file() for name, _ in FORMATS.values()):
        scores.append(1)
    return same(*scores)


def write_openvino(folder: Path, number: int) -> None:
    new, weights = folder.parent / "new.xml", b"%d" % number * 999
    said = f"<a>{number} &quot;digest&quot;: &quot;{NO_DIGEST}&quot;</a>".encode()
    new.write_bytes(named_in(said, NO_DIGEST, file_digest(said + weights, NO_DIGEST)))
    new.with_suffix(".bin").write_bytes(weights)
    folder.mkdir(exist_ok=True)
    take_place(new, folder / "nut.xml")


def read_openvino(folder: Path) -> int:
    graph = (folder / "nut.xml").read_bytes()
    return same(graph[3:4], _weights_of(graph, folder / "nut.xml")[:1])


def write_folder(folder: Path, number: int) -> None:
    """As convert.py and pull.py do."""
    with whole_folder(folder, replaced={"a", "b"}) as unfinished:
        for name in ("a", "b"):
            write_json(unfinished / name, {"number": number, "more": [0] * 9})


def write_version(folder: Path, number: int) -> None:
    """As detect.py promote does: of files that lie there already."""
    beside = folder.parent / "version"
    write_folder(beside, number)
    with whole_folder(folder, replaced={"a", "b"}) as unfinished:
        for name in ("a", "b"):
            link_or_copy(beside / name, unfinished / name)


def write_metrics(folder: Path, number: int) -> None:
    """As a resumed training does, which takes steps again."""
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    if number == 1:
        for step in range(3):
            run.log(step, loss=0.5)
    else:
        run.forget_figures_from(2)


def write_demo(folder: Path, number: int) -> None:
    """The same is left alone, and so is what a process left that was killed right after it."""
    if is_demo(folder) and read_demo(folder) == number:
        write_demo(folder, 0)
    make(folder, seed=number, categories=("leather",), train=1, good=0, defective=0, workers=1)


def read_demo(folder: Path) -> int:
    if not is_demo(folder) or len(list(folder.rglob("*.png"))) != 1:
        raise ValueError("it is not whole")
    return read_json(folder / "demo.json")["seed"]


def of_file(name: str) -> Callable[[Path], int]:
    return lambda folder: same(*[value for key, value in read_json(folder / name).items() if key == "number"])


OUTPUTS = {
    "a file: reports, tables, sheets, drawings, results.json of restorers, proofs, an audit": Output(
        lambda folder, number: write_json(folder / "x.json", {"number": number, "more": [0] * 999}), of_file("x.json")
    ),
    "a file of tensors: encoders, checkpoints, a study's cells": Output(
        lambda folder, number: write_tensors(folder / "x", {"x": torch.full((999,), number)}, {"number": number}),
        lambda folder: same(read_tensors(folder / "x")[1]["number"], read_tensors(folder / "x")[0]["x"][0]),
    ),
    "a model: fit, autoencoder, vgg_cam": Output(
        lambda folder, n: write_model(folder, Method(n), number=n), read_model
    ),
    "a decision: area rules, thresholds": Output(write_rule, of_file("inspector.json")),
    "an index": Output(write_index, read_index),
    "results of an inspection": Output(write_results, read_results),
    "OpenVINO's two files": Output(write_openvino, read_openvino),
    "a folder: pull, convert": Output(write_folder, lambda folder: same(*(of_file(x)(folder) for x in ("a", "b")))),
    "a version: learn, promote": Output(write_version, lambda folder: same(*(of_file(x)(folder) for x in ("a", "b")))),
    "the figures of a run": Output(write_metrics, lambda folder: {3: 1, 2: 2}[len(Run(folder).metrics())]),
    "the demo's images": Output(write_demo, read_demo),
}


def steps_of(output: Output, folder: Path) -> int:
    """Replace an older output, interrupted at one step after the other. Raises an error for what is not whole."""
    step, is_whole, old, out = 0, False, folder / "old", folder / "out"
    output.write(old, 1)
    assert output.read(old) == 1

    def replaced() -> None:
        assert output.read(out) in (1, 2)
        files._clear_away.cache_clear()  # another process would begin without
        output.write(out, 2)
        assert output.read(out) == 2
        left = [path.name for path in folder.rglob(".*") if path.suffix in (".part", ".old")]
        assert not left, left

    while not is_whole:
        shutil.copytree(old, out)
        is_whole = not dies_at(step, lambda: output.write(out, 2))
        replaced()
        shutil.rmtree(out)
        step += 1
    for room_bytes in ROOMS:
        shutil.copytree(old, out)
        assert not has_room(room_bytes, lambda: output.write(out, 2)), f"{room_bytes} bytes are room enough"
        replaced()
        shutil.rmtree(out)
    return step


def main(folder: Path) -> None:
    found = {}
    for number, (name, output) in enumerate(OUTPUTS.items()):
        place = folder / str(number)
        place.mkdir()
        try:
            found[name] = steps_of(output, place)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error} {traceback.format_exc()[-900:]}"
    print(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
