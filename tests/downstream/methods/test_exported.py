"""Exported files in use: by detect.py, by onnxruntime alone, by another batch; and a word for every bad file."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY
from fitted_models import SIZE_PX, run_detect
from PIL import Image

from downstream.exporting.onnx_file import CLOSE, predicted_arrays
from downstream.inspection.inspector import Inspector
from downstream.methods import exported
from downstream.methods.exported import Exported
from pretrain.command import UserError


def test_the_batch_is_free_and_does_not_matter(onnx_file, nut_pixels):
    alone, together = (predicted_arrays(Exported(onnx_file, batch_size=size), nut_pixels[:9]) for size in (1, 9))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5)
    one, two = (predicted_arrays(Exported(onnx_file, threads=threads), nut_pixels[:9]) for threads in (1, 2))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)


def test_the_snippet_of_the_documentation_needs_neither_torch_nor_heldout(
    onnx_file, padim_folder, nut_pixels, tmp_path
):
    text = (REPOSITORY / "docs/export.md").read_text()
    (snippet,) = re.findall(r"```python\n(import json\n.+?)```", text, re.DOTALL)
    snippet = snippet.replace("models/bolt.onnx", str(onnx_file))
    Image.fromarray(nut_pixels[0]).save(tmp_path / "image.png")
    forbidden = ("torch", "torchvision", "pretrain", "embeddings", "baselines", "downstream", "onnx", "kornia_rs")
    program = f"import sys\nsys.modules |= dict.fromkeys({forbidden})  # so that importing them fails\n{snippet}"
    program += "print(anomaly_map.shape, metadata['category'], metadata['type'])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers, words = done.stdout.splitlines()
    score, threshold, decision = numbers.split()
    native = Inspector.load(padim_folder)
    expected, _ = predicted_arrays(native.method, nut_pixels[:1])
    assert float(score) == pytest.approx(expected[0], rel=CLOSE)
    assert float(threshold) == native.threshold.value
    assert decision == str(bool(expected[0] > native.threshold.value))
    assert words == f"(1, {SIZE_PX}, {SIZE_PX}) hazelnut onnx"


def test_the_file_says_what_it_is_and_nothing_of_the_machine_that_made_it(onnx_file):
    data = onnx_file.read_bytes()
    assert str(REPOSITORY).encode() not in data and b"site-packages" not in data
    onnx.checker.check_model(onnx_file)
    metadata = Exported(onnx_file).metadata
    assert metadata["threshold"] == json.loads(metadata["inspector"])["threshold"]["value"]
    assert {"encoder_fingerprint", "encoder_started_from", "encoder_saw", "versions", "commit", "architecture"} <= set(
        metadata
    )


def test_detect_takes_a_file_as_it_takes_a_folder(padim_folder, onnx_file, demo_folder, tmp_path):
    codes = [
        run_detect("run", demo_folder / "hazelnut", "--model", given, "--out", tmp_path / name, "--overlays", "none")
        for name, given in (("native", padim_folder), ("exported", onnx_file))
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
    image = next((demo_folder / "hazelnut" / "test" / "good").iterdir())
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from downstream.detect import run\n"
        "from downstream.inspection.config import Run\n"
        "model, image, out = map(Path, sys.argv[1:])\n"
        "run(Run(model, (image,), out, overlays='all'))\n"
        "print('loaded', *sys.modules)"
    )
    command = [sys.executable, "-c", program, onnx_file, image, tmp_path / "out"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("loaded")[2].split())
    assert "onnxruntime" in loaded and not loaded & {"torch", "torchvision", "onnx", "sklearn", "lightly"}
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_damaged_files_get_a_word(onnx_file, tmp_path):
    data = onnx_file.read_bytes()
    file = tmp_path / "x.onnx"
    for damaged in (data[: len(data) // 2], b"", b"not a model", data[:1000]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged|not written by heldout"):
            Inspector.load(file)
    with pytest.raises(UserError, match="there is no model"):
        Inspector.load(tmp_path / "none.onnx")
    shutil.copy(onnx_file, tmp_path / "model.bin")
    with pytest.raises(UserError, match="no exported model"):
        Inspector.load(tmp_path / "model.bin")


def test_no_bit_changes_unnoticed(onnx_file, tmp_path):
    data, file = bytearray(onnx_file.read_bytes()), tmp_path / "x.onnx"
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="x.onnx is damaged: its digest is not what its header says"):
        Exported(file)


def test_weights_that_changed_are_found_by_the_answer(onnx_file, tmp_path):
    without_digest = with_header(onnx_file, tmp_path / "x.onnx", lambda metadata: metadata.pop("digest") and None)
    assert Exported(without_digest).metadata["format"] == exported.FORMAT  # as 0.1 wrote them
    proto = onnx.load(without_digest)
    (threshold,) = (one for one in proto.graph.initializer if one.name.endswith("down"))
    changed = onnx.numpy_helper.to_array(threshold) * 1.1
    threshold.CopyFrom(onnx.numpy_helper.from_array(changed, threshold.name))
    onnx.save(proto, tmp_path / "x.onnx")
    with pytest.raises(UserError, match="where it was made"):
        Exported(tmp_path / "x.onnx")


def with_header(source: Path, target: Path, change) -> Path:
    proto = onnx.load(source)
    (entry,) = (one for one in proto.metadata_props if one.key == exported.HEADER_KEY)
    metadata = json.loads(entry.value)
    entry.value = change(metadata) or json.dumps(metadata)
    onnx.save(proto, target)
    return target


def test_newer_older_and_foreign_files_get_a_word(onnx_file, tmp_path):
    target = tmp_path / "x.onnx"
    with pytest.raises(UserError, match="newer heldout"):
        Exported(with_header(onnx_file, target, lambda metadata: metadata.update(format=99)))
    with pytest.raises(UserError, match="older heldout.*export the model again"):
        Exported(with_header(onnx_file, target, lambda metadata: metadata.update(format=1)))
    with pytest.raises(UserError, match="damaged"):
        Exported(with_header(onnx_file, target, lambda metadata: metadata.pop("size_px") and None))
    with pytest.raises(UserError, match="damaged"):
        Exported(with_header(onnx_file, target, lambda metadata: "{"))
    proto = onnx.load(onnx_file)
    del proto.metadata_props[:]
    onnx.save(proto, target)
    with pytest.raises(UserError, match="not written by heldout"):
        Exported(target)
    proto = onnx.load(onnx_file)
    proto.opset_import[0].version = 999
    onnx.save(proto, target)
    with pytest.raises(UserError, match="upgrade onnxruntime"):
        Exported(target)
    proto = onnx.load(onnx_file)
    proto.graph.node[5].op_type = "Imaginary"
    onnx.save(proto, target)
    with pytest.raises(UserError, match="upgrade onnxruntime"):
        Exported(target)


def test_images_of_another_size_and_learning_are_refused(onnx_file, nut_pixels):
    file = Exported(onnx_file)
    with pytest.raises(UserError, match="32x64"):
        next(file.predict([nut_pixels[0][:, :32]]))
    for learn in (file.fit, file.refer):
        with pytest.raises(UserError, match="learns no more"):
            learn([])
    with pytest.raises(UserError, match="copy it"):
        file.save(Path("x"))
    with pytest.raises(UserError, match="keeps deciding"):
        Inspector.load(onnx_file).save_decision(onnx_file)


def test_the_service_takes_an_exported_file_beside_its_model(padim_folder, onnx_file, nut_pixels):
    from downstream.service.models import Models
    from downstream.service.service import Job, forward
    from pretrain.data.decode import Decoded

    models = Models(padim_folder.parent, batch_size=4)
    assert {padim_folder.name, onnx_file.name} <= set(models.names())
    images = [Decoded(one, *one.shape[:2]) for one in nut_pixels[:4]]
    native, exported = (
        forward([Job(loaded, "", image) for image in images])
        for loaded in (models.load(padim_folder.name), models.load(onnx_file.name))
    )
    for one, other in zip(native, exported, strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-4) and other.is_defective == one.is_defective
