"""ONNX files run by OpenVINO answer as by onnxruntime, and a sentence says where they cannot."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import REPOSITORY
from fitted_models import run_detect
from refusals import refusal

from downstream.exporting.onnx_file import CLOSE, parity
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported
from downstream.methods.openvino_runtime import onnx_header


@pytest.fixture(scope="module")
def by_openvino(onnx_file) -> Exported:
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed, so files are NOT run by it here")
    return Exported(onnx_file, runtime="openvino", threads=1)


def test_the_answers_are_the_models(by_openvino, padim_folder, nut_pixels):
    found = parity(Inspector.load(padim_folder), by_openvino, nut_pixels)
    assert found.holds and found.count == len(nut_pixels), found


def test_the_batch_is_free(by_openvino, nut_pixels):
    alone = [next(by_openvino.predict([image])) for image in nut_pixels[:3]]
    together = next(by_openvino.predict(nut_pixels[:3]))
    np.testing.assert_allclose([float(one.scores[0]) for one in alone], together.scores, rtol=CLOSE)
    assert together.is_anomalous.dtype == bool and together.maps.dtype == np.float32


def test_detect_runs_a_file_by_openvino(by_openvino, onnx_file, demo_folder, tmp_path):
    image = next((demo_folder / "hazelnut" / "test" / "good").iterdir())
    given = (image, "--model", onnx_file, "--out", tmp_path / "out", "--overlays", "none")
    assert run_detect("run", *given, "--runtime", "openvino") == run_detect("run", *given)


def test_the_header_is_read_without_the_package_onnx(onnx_file):
    data = onnx_file.read_bytes()
    assert json.loads(onnx_header(data)) == Exported(onnx_file).metadata
    for damaged in (data[:1000], b"\xff" * 20, b"not a model"):
        with pytest.raises(ValueError, match="damaged"):
            onnx_header(damaged)
    assert onnx_header(b"") is None


def test_nothing_is_reported_to_anybody(by_openvino):
    """The package reports that it was imported, where it finds what to report by."""
    import openvino.tools.ovc

    assert find_spec("openvino_telemetry") and "openvino_telemetry" not in sys.modules
    assert type(openvino.tools.ovc.telemetry).__module__ == "openvino.tools.ovc.telemetry_stub"


# What goes first came first. (pytest has enabled faulthandler too, with a stack for signals that stays.)
SIGNALED = """
import faulthandler, signal, sys
from pathlib import Path
from downstream.methods.openvino_runtime import open_openvino
faulthandler.enable()
data = Path(sys.argv[1]).read_bytes()
files = [open_openvino(data, b"", Path(sys.argv[1]), 1, "cpu", ()) for _ in range(3)]
while files:
    del files[0]
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_heard_after_models_have_gone(by_openvino, onnx_file):
    command = [sys.executable, "-c", SIGNALED, str(onnx_file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_what_it_cannot_do_is_one_sentence(by_openvino, onnx_file, padim_folder, tmp_path, monkeypatch):
    (tmp_path / "x.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    assert "cannot be run by OpenVINO" in refusal(Exported, tmp_path / "x.onnx", runtime="openvino")
    assert "has no CUDA" in refusal(Exported, onnx_file, runtime="openvino", device="cuda")
    assert "there is no runtime tvm" in refusal(Exported, onnx_file, runtime="tvm")
    assert "is a folder, which torch runs" in refusal(Inspector.load, padim_folder, runtime="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install -e '.[openvino]'" in refusal(Exported, onnx_file, runtime="openvino")


def test_a_machine_without_a_device_that_it_knows(by_openvino, onnx_file, monkeypatch):
    import openvino

    monkeypatch.setattr(openvino.Core, "available_devices", [])
    assert "finds no CPU that it knows" in refusal(Exported, onnx_file, runtime="openvino")
