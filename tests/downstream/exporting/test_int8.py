"""int8: what it learns anew, what it says of its accuracy, and when it is refused."""

import numpy as np
import onnx
import pytest
from fitted_models import run_export

from downstream.exporting.onnx_file import CLOSE, predicted_arrays
from downstream.inspection.inspector import Inspector


def test_int8_learns_its_threshold_anew_and_says_what_it_costs(padim_folder, demo_folder, tmp_path, nut_pixels, capsys):
    out = tmp_path / "int8.onnx"
    lenient = ("--max-auroc-loss", 0.2, "--max-changed-decisions", 0.3)
    assert run_export(padim_folder, "--to", "onnx-int8", "--data", demo_folder, "--out", out, *lenient) == 0
    words = capsys.readouterr().out
    assert "image AUROC" in words and "before" in words and "decisions changed" in words
    found = Inspector.load(out)
    native = Inspector.load(padim_folder)
    assert found.method.metadata["type"] == "onnx-int8"
    assert found.threshold.value != native.threshold.value
    assert found.threshold.value == pytest.approx(found.method.metadata["threshold"])
    operators = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    before, after = predicted_arrays(native.method, nut_pixels)[0], predicted_arrays(found.method, nut_pixels)[0]
    assert np.corrcoef(before, after)[0, 1] > 0.95
    assert not np.allclose(before, after, rtol=CLOSE)


def test_int8_that_moved_too_far_is_refused(padim_folder, demo_folder, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    strict = ("--max-auroc-loss", -2)
    assert run_export(padim_folder, "--to", "onnx-int8", "--data", demo_folder, "--out", out, *strict) == 2
    assert "moved too far" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_int8_takes_the_images_that_the_model_was_fitted_to(padim_folder, demo_folder, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    assert run_export(padim_folder, "--to", "onnx-int8", "--out", out) == 2
    assert "--data" in capsys.readouterr().err
    other = ("--data", demo_folder, "--category", "bottle")
    assert run_export(padim_folder, "--to", "onnx-int8", "--out", out, *other) == 2
    assert "not those that the model was fitted to" in capsys.readouterr().err
