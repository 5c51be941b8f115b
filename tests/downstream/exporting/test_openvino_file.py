"""OpenVINO's own two files: they answer as the model does, belong together, and are refused where a bit changed."""

import sys
from importlib.util import find_spec
from unittest.mock import patch

import onnx
import pytest
from conftest import REPOSITORY
from fitted_models import MODELS, fitted, run_detect, run_export
from refusals import refusal

from downstream.exporting.onnx_file import parity
from downstream.exporting.openvino_file import write_openvino
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported

pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")


@pytest.fixture(scope="module")
def exported(padim_folder, onnx_file, tmp_path_factory):
    """Written by the command, for which torch need not convert the model once more."""
    file = tmp_path_factory.mktemp("openvino") / "nut.xml"
    with patch("downstream.export.onnx_model", lambda graph: onnx.load(onnx_file)):
        assert run_export(padim_folder, "--to", "openvino", "--out", file) == 0
    return file


def test_the_files_are_run_as_the_model_is(exported, padim_folder, nut_pixels, demo_folder, tmp_path):
    file = Exported(exported)
    assert parity(Inspector.load(padim_folder), file, nut_pixels).holds
    assert (file.metadata["type"], file.runtime) == ("openvino", "openvino")
    assert {path.name for path in exported.parent.glob("nut*")} == {"nut.xml", "nut.bin"}
    image = next((demo_folder / "hazelnut" / "test" / "good").iterdir())
    assert run_detect("run", image, "--model", exported, "--out", tmp_path / "out") in (0, 1)
    assert not [text for text in (str(REPOSITORY), "site-packages", "model.xml") if text in exported.read_text()]


def test_no_bit_changes_unnoticed_in_either(exported):
    for file in (exported, exported.with_suffix(".bin")):
        data = file.read_bytes()
        changed = data.replace(b"hazelnut", b"hazelnuz", 1) if file == exported else bytes([data[0] ^ 1]) + data[1:]
        file.write_bytes(changed)
        assert "is damaged: its digest is not what its header says" in refusal(Exported, exported)
        file.write_bytes(data)
    exported.with_suffix(".bin").unlink()
    assert "nut.bin" in refusal(Exported, exported)


def test_what_is_there_is_kept_and_onnxruntime_runs_none(exported, padim_folder, capsys):
    assert run_export(padim_folder, "--to", "openvino", "--out", exported) == 2
    assert "nut.xml is there already" in capsys.readouterr().err
    assert "run by OpenVINO alone" in refusal(Exported, exported, runtime="onnxruntime")


def test_without_the_package_a_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install -e '.[openvino]'" in refusal(write_openvino, None, "", tmp_path / "x.xml")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_statistics_answers_alike(name, demo_folder, tmp_path, capsys):
    folder = fitted(tmp_path / "model", demo_folder, name)
    assert run_export(folder, "--to", "openvino", "--data", demo_folder) == 0
    assert "0 decisions differ" in capsys.readouterr().out
