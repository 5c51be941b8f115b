"""Exported models: the same answers as the model's on every backend that runs here, and a word for every bad file."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

from downstream import detect, exported, exporting, pt2
from downstream.exported import Exported
from downstream.exporting import CLOSE, answers, parity
from downstream.inspector import Inspector
from pretrain.command import Mistake, run_command, run_commands
from pretrain.dataset import load
from scripts import export

SIZE_PX = 64
BANK = "grid=8,dimensions=16,share=0.2"
# One line for each kind of statistics, with what is special in its graph.
MODELS = {
    "padim": ("padim", "dimensions=24,grid=8"),
    "every channel, background": (
        "padim",
        "dimensions=null,grid=4,neighbourhood=1,levels=[level2],foreground=0.5,whole=0.5",
    ),
    "mixed channels": ("padim", "dimensions=7,grid=8,reduction=orthogonal,quiet=0.0"),
    "bank": ("bank", BANK),
    "bank, several neighbours": ("bank", BANK + ",neighbours=3,whiten=true,whole=1.0"),
}


def run_export(*arguments: object) -> int:
    return run_command(export.main, export.Config, list(map(str, arguments)))


def run_detect(*arguments: object) -> int:
    return run_commands({"fit": (detect.fit, detect.Fit), "run": (detect.run, detect.Run)}, list(map(str, arguments)))


def fitted(folder: Path, data: Path, name: str = "padim", *more: object) -> Path:
    method, options = MODELS[name]
    small = ("--size-px", SIZE_PX, "--encoder", "random", "--options", options)
    arguments = ("--data", data, "--category", "hazelnut", "--method", method, "--out", folder)
    assert run_detect("fit", *arguments, *small, *more) == 0
    return folder


@pytest.fixture(scope="module")
def model(demo_folder, tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("models") / "nut", demo_folder)


@pytest.fixture(scope="module")
def onnx_file(model) -> Path:
    assert run_export(model) == 0
    return model.with_suffix(".onnx")


@pytest.fixture(scope="module")
def pt2_file(model) -> Path:
    assert run_export(model, "--to", "pt2") == 0
    return model.with_suffix(".pt2")


@pytest.fixture(scope="module")
def pixels(demo_folder) -> np.ndarray:
    """Every picture of the category: uint8 (n, h, w, 3); not a multiple of the batch."""
    pictures = load(demo_folder, SIZE_PX).of("hazelnut")
    return pictures.batch(range(len(pictures)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["onnx", "pt2"])
def test_every_backend_answers_as_the_model_does(name, backend, demo_folder, pixels, tmp_path):
    folder = fitted(tmp_path / "model", demo_folder, name)
    native = Inspector.load(folder)
    native.decide_at(float(np.median(answers(native.method, pixels)[0])))  # so that there are decisions of both kinds
    native.save_decision(folder)
    assert run_export(folder, "--to", backend) == 0
    file = Exported(folder.with_suffix(f".{backend}"), batch_size=7)
    found = parity(native, file, pixels)
    assert found.count == len(pixels) and found.holds, found
    scores, _, decisions = answers(file, pixels)
    assert (decisions == (scores > np.float32(native.threshold.value))).all()
    assert 0 < decisions.sum() < len(decisions)


def test_parity_can_fail(model, onnx_file, pixels):
    native = Inspector.load(model)
    native.method.weights_ = native.method.weights_ * (1 + 3 * CLOSE)
    assert not parity(native, Exported(onnx_file), pixels).holds
    native = Inspector.load(model)
    native.threshold = native.threshold._replace(value=float(np.median(native.normal_scores)))
    found = parity(native, Exported(onnx_file), pixels)
    assert found.decisions > 0 and not found.holds


def test_a_graph_that_answers_otherwise_is_not_written(model, tmp_path, pixels, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "CLOSE", -1.0)
    assert run_export(model, "--out", tmp_path / "x.onnx") == 2
    assert "is not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_batch_is_free_and_does_not_matter(onnx_file, pixels):
    alone, together = (answers(Exported(onnx_file, batch_size=size), pixels[:9]) for size in (1, 9))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5)
    one, two = (answers(Exported(onnx_file, threads=threads), pixels[:9]) for threads in (1, 2))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)


def test_floats_may_be_asked_for(model, onnx_file, demo_folder, tmp_path, pixels):
    assert run_export(model, "--input", "float", "--out", tmp_path / "float.onnx") == 0
    floats = Exported(tmp_path / "float.onnx")
    assert floats.takes_floats and not Exported(onnx_file).takes_floats
    np.testing.assert_allclose(answers(floats, pixels)[0], answers(Exported(onnx_file), pixels)[0], rtol=1e-5)
    between = torch.from_numpy(pixels[0]).permute(2, 0, 1) / 255 * 0.999 + 0.0003
    (native,) = Inspector.load(model).method.predict([between])
    (found,) = floats.predict([between])
    assert isinstance(found.scores, torch.Tensor)
    torch.testing.assert_close(found.scores, native.scores, rtol=1e-4, atol=0)
    with pytest.raises(Mistake, match="--input float"):
        next(Exported(onnx_file).predict([between]))


def test_the_snippet_of_the_readme_needs_neither_torch_nor_heldout(onnx_file, model, pixels, tmp_path):
    text = (REPOSITORY / "README.md").read_text()
    (snippet,) = re.findall(r"\n((?:    import json\n)(?:    .*\n)+)", text)
    snippet = textwrap.dedent(snippet).replace("models/bolt.onnx", str(onnx_file))
    Image.fromarray(pixels[0]).save(tmp_path / "picture.png")
    forbidden = ("torch", "torchvision", "pretrain", "embeddings", "baselines", "downstream", "onnx", "kornia_rs")
    program = f"import sys\nsys.modules |= dict.fromkeys({forbidden})  # so that importing them fails\n{snippet}"
    program += "print(heat.shape, facts['category'], facts['kind'])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers, words = done.stdout.splitlines()
    score, threshold, decision = numbers.split()
    native = Inspector.load(model)
    expected, _ = answers(native.method, pixels[:1])
    assert float(score) == pytest.approx(expected[0], rel=CLOSE)
    assert float(threshold) == native.threshold.value
    assert decision == str(bool(expected[0] > native.threshold.value))
    assert words == f"(1, {SIZE_PX}, {SIZE_PX}) hazelnut onnx"


def test_the_file_says_what_it_is_and_nothing_of_the_machine_that_made_it(onnx_file, pt2_file):
    for file in (onnx_file, pt2_file):
        data = file.read_bytes()
        assert str(REPOSITORY).encode() not in data and b"site-packages" not in data
    onnx.checker.check_model(onnx_file)
    facts = Exported(onnx_file).facts
    assert facts["threshold"] == json.loads(facts["inspector"])["threshold"]["value"]
    assert {"encoder_fingerprint", "encoder_saw", "versions", "commit", "architecture"} <= set(facts)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_detect_takes_a_file_as_it_takes_a_folder(kind, model, onnx_file, pt2_file, demo_folder, tmp_path):
    file = {"onnx": onnx_file, "pt2": pt2_file}[kind]
    codes = [
        run_detect("run", demo_folder / "hazelnut", "--model", given, "--out", tmp_path / name, "--overlays", "none")
        for name, given in (("native", model), ("exported", file))
    ]
    assert codes[0] == codes[1]
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()]
        for name in ("native", "exported")
    )
    assert len(ours) == len(theirs) > 10
    for native, found in zip(ours, theirs, strict=True):
        assert found["score"] == pytest.approx(native["score"], rel=CLOSE)
        same = ("path", "is_defective", "threshold", "map_threshold", "width")
        assert [found[name] for name in same] == [native[name] for name in same]
        assert len(found["regions"]) == len(native["regions"])


def test_an_onnx_file_is_run_without_torch(onnx_file, demo_folder, tmp_path):
    picture = next((demo_folder / "hazelnut" / "test" / "good").iterdir())
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from downstream.detect import Run, run\n"
        "model, picture, out = map(Path, sys.argv[1:])\n"
        "run(Run(model, (picture,), out, overlays='all'))\n"
        "print('loaded', *sys.modules)"
    )
    command = [sys.executable, "-c", program, onnx_file, picture, tmp_path / "out"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("loaded")[2].split())
    assert "onnxruntime" in loaded and not loaded & {"torch", "torchvision", "onnx", "sklearn", "lightly"}
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_int8_learns_its_threshold_anew_and_says_what_it_costs(model, demo_folder, tmp_path, pixels, capsys):
    out = tmp_path / "int8.onnx"
    lenient = ("--most-auroc-lost", 0.2, "--most-decisions-changed", 0.3)
    assert run_export(model, "--to", "onnx-int8", "--data", demo_folder, "--out", out, *lenient) == 0
    words = capsys.readouterr().out
    assert "image AUROC" in words and "before" in words and "decisions changed" in words
    found = Inspector.load(out)
    native = Inspector.load(model)
    assert found.method.facts["kind"] == "onnx-int8"
    assert found.threshold.value != native.threshold.value
    assert found.threshold.value == pytest.approx(found.method.facts["threshold"])
    operators = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    before, after = answers(native.method, pixels)[0], answers(found.method, pixels)[0]
    assert np.corrcoef(before, after)[0, 1] > 0.95
    assert not np.allclose(before, after, rtol=CLOSE)


def test_int8_that_moved_too_far_is_refused(model, demo_folder, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    strict = ("--most-auroc-lost", -2)
    assert run_export(model, "--to", "onnx-int8", "--data", demo_folder, "--out", out, *strict) == 2
    assert "moved too far" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_int8_takes_the_pictures_that_the_model_was_fitted_to(model, demo_folder, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    assert run_export(model, "--to", "onnx-int8", "--out", out) == 2
    assert "--data" in capsys.readouterr().err
    other = ("--data", demo_folder, "--category", "bottle")
    assert run_export(model, "--to", "onnx-int8", "--out", out, *other) == 2
    assert "not those that the model was fitted to" in capsys.readouterr().err


def test_an_engine_is_made_by_trtexec_or_the_command_is_said(model, tmp_path, monkeypatch, capsys):
    """TensorRT itself is on no machine of ours: this tests what trtexec is called with."""
    out = tmp_path / "nut.engine"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert run_export(model, "--to", "tensorrt", "--out", out) == 2
    words = capsys.readouterr().err
    assert "no trtexec" in words and "--maxShapes=pictures:16x64x64x3" in words
    assert out.with_suffix(".onnx").is_file() and not out.exists()
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nopen({str(out)!r}, 'w').write(' '.join(sys.argv[1:]))\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert run_export(model, "--to", "tensorrt", "--out", out) == 2  # the ONNX file is there
    assert "is there already" in capsys.readouterr().err
    assert run_export(model, "--to", "tensorrt", "--out", out, "--overwrite") == 0
    assert out.read_text().startswith(f"--onnx={out.with_suffix('.onnx')} --saveEngine={out}")


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_damaged_files_get_a_word(kind, onnx_file, pt2_file, tmp_path):
    data = {"onnx": onnx_file, "pt2": pt2_file}[kind].read_bytes()
    file = tmp_path / f"x.{kind}"
    for damaged in (data[: len(data) // 2], b"", b"not a model", data[:1000]):
        file.write_bytes(damaged)
        with pytest.raises(Mistake, match="damaged|not written by heldout"):
            Inspector.load(file)
    with pytest.raises(Mistake, match="there is no model"):
        Inspector.load(tmp_path / "none.onnx")
    shutil.copy(onnx_file, tmp_path / "model.bin")
    with pytest.raises(Mistake, match="no exported model"):
        Inspector.load(tmp_path / "model.bin")


def test_weights_that_changed_are_found_by_the_answer(onnx_file, tmp_path):
    proto = onnx.load(onnx_file)
    (threshold,) = (one for one in proto.graph.initializer if one.name == "down")
    changed = onnx.numpy_helper.to_array(threshold) * 1.1
    threshold.CopyFrom(onnx.numpy_helper.from_array(changed, "down"))
    onnx.save(proto, tmp_path / "x.onnx")
    with pytest.raises(Mistake, match="where it was made"):
        Exported(tmp_path / "x.onnx")


def with_header(source: Path, target: Path, change) -> Path:
    proto = onnx.load(source)
    (entry,) = (one for one in proto.metadata_props if one.key == exported.HEADER_KEY)
    facts = json.loads(entry.value)
    entry.value = change(facts) or json.dumps(facts)
    onnx.save(proto, target)
    return target


def test_newer_and_foreign_files_get_a_word(onnx_file, tmp_path):
    target = tmp_path / "x.onnx"
    with pytest.raises(Mistake, match="newer heldout"):
        Exported(with_header(onnx_file, target, lambda facts: facts.update(format=99)))
    with pytest.raises(Mistake, match="damaged"):
        Exported(with_header(onnx_file, target, lambda facts: facts.pop("size_px") and None))
    with pytest.raises(Mistake, match="damaged"):
        Exported(with_header(onnx_file, target, lambda facts: "{"))
    proto = onnx.load(onnx_file)
    del proto.metadata_props[:]
    onnx.save(proto, target)
    with pytest.raises(Mistake, match="not written by heldout"):
        Exported(target)
    proto = onnx.load(onnx_file)
    proto.opset_import[0].version = 999
    onnx.save(proto, target)
    with pytest.raises(Mistake, match="upgrade onnxruntime"):
        Exported(target)
    proto = onnx.load(onnx_file)
    proto.graph.node[5].op_type = "Imaginary"
    onnx.save(proto, target)
    with pytest.raises(Mistake, match="upgrade onnxruntime"):
        Exported(target)


def repacked(source: Path, target: Path, change) -> Path:
    """A copy of an archive with its parts changed; names without the folder."""
    with zipfile.ZipFile(source) as archive:
        parts = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"m/{name}", data)
    return target


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_pt2_is_unpickled_or_evaluated(pt2_file, tmp_path):
    mark = tmp_path / "sprung"
    torch.save(Trap(mark), trap := tmp_path / "trap.pt")
    target = tmp_path / "x.pt2"

    def edited(part: str, old: str, new: str):
        def change(parts: dict) -> None:
            assert old.encode() in parts[part]
            parts[part] = parts[part].replace(old.encode(), new.encode())

        return change

    def pickled(parts: dict) -> None:
        edited("data/weights/model_weights_config.json", '"use_pickle": false', '"use_pickle": true')(parts)
        parts.update({name: trap.read_bytes() for name in parts if "weights/weight_" in name})

    model, call = "models/model.json", f"__import__('os').mkdir('{mark}')"
    traps = [
        pickled,
        lambda parts: parts.update({"data/sample_inputs/model.pt": trap.read_bytes()}),
        lambda parts: parts.update({"data/weights/model.pt": trap.read_bytes()}),
        lambda parts: parts.update({"data/constants/opaque_obj_0": trap.read_bytes()}),
        lambda parts: parts.update({"data/aotinductor/model/x.so": b"code"}),
        edited(model, "Symbol('", call + "+Symbol('"),
        edited(model, '"guards_code": []', f'"guards_code": ["{call}"]'),
        edited(model, "torch.ops.aten.sqrt.default", "torch.ops.aten.from_file.default"),
        edited(model, "torch.ops.aten.sqrt.default", "os.system"),
        edited(model, '"name": "pictures"', '"name": "pictures, _=print(1)"'),
        edited(model, "builtins.tuple", "torch.Size"),
    ]
    assert Exported(repacked(pt2_file, target, lambda parts: None)).facts["kind"] == "pt2"
    for change in traps:
        with pytest.raises(Mistake, match="is not run"):
            Exported(repacked(pt2_file, target, change))
    assert not mark.exists()
    assert pt2.PARTS.fullmatch("models/model.json") and not pt2.PARTS.fullmatch("../models/model.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one model"),
        (("nowhere",), "there is no model in nowhere"),
        (("MODEL", "--to", "onxx"), "must be one of"),
        (("MODEL", "--out", "x.bin"), "must end in .onnx"),
        (("FILE",), "is a file"),
        (("MODEL", "--to", "onnx"), "is there already"),
        (("MODEL", "--out", "y.onnx", "--data", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, model, onnx_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": model, "FILE": onnx_file}
    try:
        code = run_export(*(places.get(word, word) for word in arguments))
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_has_no_graph_is_refused(demo_folder, tmp_path, capsys):
    folder = tmp_path / "mean"
    arguments = ("--data", demo_folder, "--category", "hazelnut", "--method", "mean", "--size-px", SIZE_PX)
    assert run_detect("fit", *arguments, "--out", folder) == 0
    assert run_export(folder) == 2
    assert "cannot be exported" in capsys.readouterr().err


def test_pictures_of_another_size_and_learning_are_refused(onnx_file, pixels):
    file = Exported(onnx_file)
    with pytest.raises(Mistake, match="32x64"):
        next(file.predict([pixels[0][:, :32]]))
    for learn in (file.fit, file.refer):
        with pytest.raises(Mistake, match="learns no more"):
            learn([])
    with pytest.raises(Mistake, match="copy it"):
        file.save(Path("x"))


def test_the_service_takes_an_exported_file_beside_its_model(model, onnx_file, pixels):
    from downstream.service import Job, forward
    from downstream.shelf import Shelf
    from pretrain.decode import Decoded

    shelf = Shelf(model.parent, batch=4)
    assert {model.name, onnx_file.name} <= set(shelf.names())
    pictures = [Decoded(one, *one.shape[:2]) for one in pixels[:4]]
    native, exported = (
        forward([Job(loaded, "", picture) for picture in pictures])
        for loaded in (shelf.load(model.name), shelf.load(onnx_file.name))
    )
    for one, other in zip(native, exported, strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-4) and other.is_defective == one.is_defective
