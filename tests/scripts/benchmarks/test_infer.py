"""The figures of infer.py, from measurements that are made up."""

import pytest
import timm
import torch
from safetensors.torch import load_file

from pretrain.encoder import make_encoder
from scripts.benchmarks.infer import LITE, PADIM, figures_of, table_of, write_weights

NAMES = ("padim onnx", "padim onnx-int8", PADIM, "anomalib padim, Lite0", "padim openvino")
MS = dict(zip(NAMES, (10, 5, 80, 90, 4), strict=True))
AUROCS = {
    "capsule": dict(zip(NAMES, (0.95, 0.93, 0.6, 0.9, 0.95), strict=True)),
    "tire": dict(zip(NAMES, (0.75, 0.75, 0.7, 0.6, 0.75), strict=True)),
}


@pytest.fixture
def figures() -> dict:
    measured = {
        threads: {
            # A slow round, in which the machine was half as fast for all.
            name: {f"batch {batch}": [(slow * ms / 1e3, ms / 1e3) for slow in (1, 2, 1)] for batch in (1, 16)}
            | {"peak_mib": 100.0}
            for name, ms in MS.items()
        }
        for threads in (1, 2)
    }
    starts = {name: [(0.1 * ms, 0.2), (0.1 * ms, 0.2)] for name, ms in MS.items()}
    return figures_of(measured, AUROCS, starts)


def test_the_fastest_of_ours_is_compared_with_resnet18_in_time_and_with_the_best_padim_in_accuracy(figures):
    assert figures["fastest"] == "padim onnx-int8"  # of those that the extra `export` runs
    assert figures["faster_1_thread"] == figures["faster_2_threads"] == pytest.approx(16)
    assert figures["auroc_gain"] == pytest.approx(0.84 - 0.75)
    assert figures["start_s"] == pytest.approx(1.0)  # the slower of ours


def test_the_table_has_every_contestant_with_its_aurocs_by_category(figures):
    lines = table_of(figures)
    assert all(sum(line.startswith(f"{name} ") for line in lines) == 3 for name in NAMES)  # two threads, AUROC
    (of_category,) = (line for line in lines if line.startswith("padim onnx-int8 ") and "(" not in line)
    assert of_category.split()[-3:] == ["0.930", "0.750", "0.840"]
    assert next(line for line in lines if "AUROC" in line).split()[-3:] == ["capsule", "tire", "mean"]


def test_anomalib_gets_the_weights_of_ours_under_the_names_of_timm(tmp_path):
    files, usual = write_weights(tmp_path)
    assert usual in ("random", "ImageNet's")
    model = timm.create_model(LITE).eval()
    model.load_state_dict(load_file(files[LITE]))  # all names and shapes
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = make_encoder("efficientnet_lite0", "imagenet").eval()
    with torch.inference_mode():
        theirs = model.forward_intermediates((images * 255 - 127) / 128, intermediates_only=True)[-1]
        torch.testing.assert_close(theirs, ours(images)["level4"], rtol=1e-4, atol=1e-4)
