"""A file is written only if it answers as the model does: the same scores, maps and decisions."""

import numpy as np
import pytest
import torch
from fitted_models import MODELS, PATCHCORE, SIZE_PX, TINY, fitted, run_detect, run_export
from PIL import Image

from downstream.exporting import onnx_file as exporting
from downstream.exporting.onnx_file import CLOSE, parity, predicted_arrays
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported
from pretrain.command import UserError

# Each is written by torch in some seconds. That of rectangles, further down, is a fused one.
SLOW = {*MODELS} - {"padim"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
)
def test_a_file_answers_as_the_model_does(name, demo_folder, nut_pixels, tmp_path):
    folder = fitted(tmp_path / "model", demo_folder, name)
    native = Inspector.load(folder)
    # So that there are decisions of both kinds.
    native.decide_at(float(np.median(predicted_arrays(native.method, nut_pixels)[0])))
    native.save_decision(folder)
    assert run_export(folder) == 0
    file = Exported(folder.with_suffix(".onnx"), batch_size=7)
    found = parity(native, file, nut_pixels)
    assert found.count == len(nut_pixels) and found.holds, found
    scores, _, decisions = predicted_arrays(file, nut_pixels)
    assert (decisions == (scores > np.float32(native.threshold.value))).all()
    assert 0 < decisions.sum() < len(decisions)


def test_a_model_of_rectangles(demo_folder, tmp_path):
    for number, path in enumerate(sorted((demo_folder / "hazelnut" / "train" / "good").iterdir())):
        Image.open(path).crop((0, 30, 256, 130)).save(tmp_path / f"{number}.png")
    small = ("--size-px", SIZE_PX, "--method", "fused", "--options", TINY + PATCHCORE)
    assert run_detect("fit", "--data", tmp_path, "--out", tmp_path / "model", *small) == 0
    assert run_export(tmp_path / "model", "--data", tmp_path) == 0  # and so it answers as the model does
    file = Exported(tmp_path / "model.onnx")
    assert file.size_px == Inspector.load(tmp_path / "model").size_px == (40, 104)
    (found,) = file.predict([np.zeros((40, 104, 3), np.uint8)])
    assert found.maps.shape == (1, 40, 104)
    with pytest.raises(UserError, match="image of 40x104 pixels does not fit .* which takes 104x40 pixels"):
        next(file.predict([np.zeros((104, 40, 3), np.uint8)]))


def test_parity_can_fail(padim_folder, onnx_file, nut_pixels):
    native = Inspector.load(padim_folder)
    native.method.position_weights_ = native.method.position_weights_ * (1 + 3 * CLOSE)
    assert not parity(native, Exported(onnx_file), nut_pixels).holds
    native = Inspector.load(padim_folder)
    native.threshold = native.threshold._replace(value=float(np.median(native.normal_scores)))
    found = parity(native, Exported(onnx_file), nut_pixels)
    assert found.decisions > 0 and not found.holds


def test_a_graph_that_answers_otherwise_is_not_written(nut_converted, padim_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "CLOSE", -1.0)
    assert run_export(padim_folder, "--out", tmp_path / "x.onnx") == 2
    assert "is not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_floats_may_be_asked_for(padim_folder, onnx_file, tmp_path, nut_pixels):
    assert run_export(padim_folder, "--input", "float", "--out", tmp_path / "float.onnx") == 0
    floats = Exported(tmp_path / "float.onnx")
    assert floats.takes_floats and not Exported(onnx_file).takes_floats
    np.testing.assert_allclose(
        predicted_arrays(floats, nut_pixels)[0], predicted_arrays(Exported(onnx_file), nut_pixels)[0], rtol=1e-5
    )
    between = torch.from_numpy(nut_pixels[0]).permute(2, 0, 1) / 255 * 0.999 + 0.0003
    (native,) = Inspector.load(padim_folder).method.predict([between])
    (found,) = floats.predict([between])
    assert isinstance(found.scores, torch.Tensor)
    torch.testing.assert_close(found.scores, native.scores, rtol=1e-4, atol=0)
    with pytest.raises(UserError, match="--input float"):
        next(Exported(onnx_file).predict([between]))


def test_what_has_no_graph_is_refused(demo_folder, tmp_path, capsys):
    folder = tmp_path / "mean"
    arguments = ("--data", demo_folder, "--category", "hazelnut", "--method", "mean", "--size-px", SIZE_PX)
    assert run_detect("fit", *arguments, "--out", folder) == 0
    assert run_export(folder) == 2
    assert "cannot be exported" in capsys.readouterr().err


def test_an_operator_that_onnx_lacks_gets_a_word():
    class Strange(torch.nn.Module):
        size_px, takes_floats = 8, True

        def forward(self, images):
            return torch.linalg.eigvals(images).real

    with pytest.raises(UserError, match="cannot convert this model to ONNX"):
        exporting.onnx_model(Strange(), ("values",))
