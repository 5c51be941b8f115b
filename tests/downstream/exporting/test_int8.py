"""int8: what it learns anew, what it says of its accuracy, and when it is refused."""

from collections import Counter
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fitted_models import TINY, run_detect, run_export
from PIL import Image
from safetensors.torch import save

from downstream.exporting.graph import PatchVectors
from downstream.exporting.int8 import _Calibration, quantized, saturates
from downstream.exporting.onnx_file import CLOSE, onnx_model, parity, predicted_arrays
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import OUTPUTS, Exported
from downstream.methods.padim import PaDiM
from pretrain.data.channels import read_image
from pretrain.encoder import Encoder


@pytest.fixture(scope="module")
def converted() -> dict[bytes, bytes]:
    """What `converted_once` keeps."""
    return {}


@pytest.fixture
def converted_once(converted, monkeypatch) -> None:
    """Of each graph that is exported: torch takes 3 s to convert it, and int8 begins after that."""

    def once(graph: torch.nn.Module, names: tuple[str, ...] = OUTPUTS) -> onnx.ModelProto:
        key = save({name: value.contiguous() for name, value in graph.state_dict().items()}, {"names": repr(names)})
        if key not in converted:
            converted[key] = onnx_model(graph, names).SerializeToString()
        return onnx.load_from_string(converted[key])

    for module in ("downstream.export", "downstream.exporting.int8"):
        monkeypatch.setattr(f"{module}.onnx_model", once)


@pytest.mark.usefixtures("converted_once")
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


@pytest.mark.usefixtures("converted_once")
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


def test_int8_of_a_version_that_learned_from_feedback_is_refused(fused_folder, demo_folder, tmp_path, capsys):
    learned = Inspector.load(fused_folder)
    learned.metadata["learned"] = {"good": 1, "defective": 0, "tells_defects": False}
    learned.save(tmp_path / "nut")
    out = tmp_path / "int8.onnx"
    assert run_export(tmp_path / "nut", "--to", "onnx-int8", "--out", out, "--data", demo_folder) == 2
    assert "without this version's feedback: export --to onnx" in capsys.readouterr().err and not out.exists()


@pytest.mark.slow
def test_rectangles_in_int8_and_by_openvino(demo_folder, tmp_path):
    for number, path in enumerate(sorted((demo_folder / "hazelnut" / "train" / "good").iterdir())):
        Image.open(path).crop((0, 30, 256, 130)).save(tmp_path / f"{number}.png")
    small = ("--size-px", 64, "--method", "padim", "--options", TINY + "dimensions=8,levels=[level1,level2]")
    assert run_detect("fit", "--data", tmp_path, "--out", tmp_path / "model", *small) == 0
    native = Inspector.load(tmp_path / "model")
    lenient = ("--data", tmp_path, "--max-auroc-loss", 1, "--max-changed-decisions", 1)
    assert run_export(tmp_path / "model", "--to", "onnx-int8", "--out", tmp_path / "int8.onnx", *lenient) == 0
    images = [native._opened(path, read_image).pixels.copy() for path in sorted(tmp_path.glob("*.png"))[:3]]
    found = Exported(tmp_path / "int8.onnx")
    assert found.size_px == native.size_px == (40, 104)
    before, after = predicted_arrays(native.method, images)[1], predicted_arrays(found, images)[1]
    assert before.shape == after.shape == (3, 40, 104)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9
    if find_spec("openvino"):
        assert run_export(tmp_path / "model", "--to", "openvino", "--out", tmp_path / "nut.xml") == 0
        assert parity(native, Exported(tmp_path / "nut.xml"), images).holds


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_layers_stay_quantized_from_the_second_on(architecture, tmp_path):
    """Through ReLU6 and depthwise convolutions, residual sums and pooling: nothing in between is fp32."""
    images = list(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    method = PaDiM(encoder=Encoder(architecture).eval(), levels=("level1", "level2"))
    vectors = PatchVectors(method, 64, takes_floats=True).eval().requires_grad_(False)
    proto = quantized(onnx_model(vectors, ("vectors",)), images, takes_floats=True, seven_bits=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "run.onnx"), 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    convolutions = Counter(node.op_type for node in proto.graph.node)["Conv"]
    assert run["QLinearConv"] == convolutions - 1 and run["Conv"] + run["FusedConv"] == 1
    assert not run["Add"] and not run["Clip"] and not run["Relu"] + run["MaxPool"] - (architecture == "resnet18")
    assert run["QuantizeLinear"] == 1 and run["DequantizeLinear"] <= 2  # into the encoder, and out at each level
    found = session.run(None, {"images": torch.stack(images).numpy()})[0]
    exact = vectors(torch.stack(images)).numpy()
    assert np.linalg.norm(found - exact) < 0.5 * np.linalg.norm(exact - exact.mean((0, 1, 2)))


@pytest.mark.slow
@pytest.mark.usefixtures("converted_once")
def test_a_processor_that_multiplies_wrongly_is_known(padim_folder, demo_folder, tmp_path, monkeypatch, capsys):
    """Which one runs this test is not known: that it says the same twice, and that it is obeyed, can be checked."""
    assert saturates() == saturates()
    monkeypatch.setattr("downstream.export.saturates", lambda: True)
    out = tmp_path / "int8.onnx"
    lenient = ("--max-auroc-loss", 1, "--max-changed-decisions", 1)
    assert run_export(padim_folder, "--to", "onnx-int8", "--data", demo_folder, "--out", out, *lenient) == 0
    assert "7 bits" in capsys.readouterr().out
    assert Inspector.load(out).method.metadata["seven_bits"] is True


def test_large_images_calibrate_by_fewer():
    """All activations of all of them are in memory at once."""

    def count(size_px: int, normals: int) -> int:
        calibration, given = _Calibration([torch.zeros(3, size_px, size_px)] * normals, takes_floats=True), 0
        while calibration.get_next() is not None:
            given += 1
        return given

    assert count(64, 100) == 64 and count(224, 100) == 64 and count(224, 9) == 9
    assert count(384, 100) == 21 and count(4000, 3) == 1
