"""What an auto-encoder's training leaves: figures without tests or masks, images whose scale is the threshold."""

import numpy as np
import pytest
import torch

from baselines.autoencoders.config import Config
from baselines.autoencoders.method import AutoEncoder
from baselines.autoencoders.report import as_pixels, evaluate, print_figures, reconstructions
from baselines.contract.method import Images
from pretrain.data.dataset import ImageSet, load


@pytest.fixture(scope="module")
def leather(demo_folder) -> ImageSet:
    return load(demo_folder, 32, ("leather",))


@pytest.fixture(scope="module")
def method(leather) -> AutoEncoder:
    normals = leather.subset([i for i, record in enumerate(leather.records) if record.split == "train"])
    return AutoEncoder(size_px=32, width=4, instances=24, train_batch=4).refer(Images(normals))


def test_figures_of_pixels_only_where_there_are_masks(method, leather):
    good = leather.subset([i for i, record in enumerate(leather.records) if not record.is_anomaly])
    tests = leather.subset([i for i, record in enumerate(leather.records) if record.split == "test"])
    figures = evaluate(method, tests, 0.0, 0.0)
    assert figures["good"] == 6 and figures["false_alarm_rate"] == 1 and 0 <= figures["pixel_auroc"] <= 1
    assert "pixel_auroc" not in evaluate(method, good, 0.0, 0.0)
    assert evaluate(method, leather.subset([]), 0.0, 0.0)["good"] == 0


def test_the_mean_is_over_categories_that_have_a_figure(tmp_path, capsys):
    figures = {"nut": {"auroc": 0.5}, "bolt": {"auroc": 0.75}, "pin": {"auroc": None}}
    print_figures(figures, "ae on demo data", Config(out=tmp_path))
    (mean,) = [line for line in capsys.readouterr().out.splitlines() if "│ mean" in line]
    assert ".625" in mean and mean.count("n/a") == 4


def test_maps_are_white_at_twice_the_threshold(method, leather):
    dark, bright = (np.asarray(reconstructions(method, leather.subset([0]), limit, "leather")) for limit in (1e9, 1e-9))
    assert dark.shape == bright.shape and (bright.astype(int) - dark).min() >= 0 and bright.sum() > dark.sum()


def test_gray_becomes_three_colors():
    pixels = as_pixels(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3))
    assert pixels.dtype == np.uint8 and pixels.tolist() == [[[[0] * 3, [128] * 3, [255] * 3]]]
