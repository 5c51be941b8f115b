"""What a CAM is worth: figures in both readings, of pixels where there are masks, and images of it."""

import json

import numpy as np
import pytest
import torch

from baselines.cam.config import Test as Options
from baselines.cam.method import VggCam
from baselines.cam.network import CamNetwork, VggBackbone
from baselines.cam.report import confusion_image, draw_curves, evaluate, pixels_of, print_report, write_report
from baselines.contract.metrics import image_figures
from pretrain.command import UserError
from pretrain.data.dataset import load

METADATA = {"categories": ["leather"], "weights": "random", "normal_scores": [0.4, 0.6], "normal_peaks": [0.1, 0.2]}


@pytest.fixture(scope="module")
def evaluation(demo_folder):
    method = VggCam()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.network_ = CamNetwork(VggBackbone(1 / 32)).eval()
    return evaluate(method, load(demo_folder, 32, ("bottle",)), METADATA, Options())


def test_figures_are_those_of_the_scores(evaluation):
    for rule, threshold in evaluation.thresholds.items():
        expected = image_figures(evaluation.labels, evaluation.scores, threshold.value)
        assert evaluation.figures(rule) == evaluation.figures(rule, "bottle") == expected
    assert 0 <= pixels_of(evaluation, "bottle")["auroc"] <= 1


def test_report_is_plain_json_with_a_line_for_each_image(evaluation, tmp_path, capsys):
    print_report(evaluation)
    assert "from scratch: trained on leather, tested on bottle" in capsys.readouterr().out
    write_report(evaluation, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["thresholds"]["more probable than not"]["false_alarm_rate"] is None
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(evaluation.scores)


def test_the_matrix_is_shaded_by_the_share_of_its_row():
    all_right = confusion_image({"rule": image_figures([0, 1], [0.0, 1.0], 0.5)})
    all_good = confusion_image({"rule": image_figures([0, 1], [0.0, 0.0], 0.5)})
    assert all_right.size == all_good.size and not np.array_equal(np.asarray(all_right), np.asarray(all_good))


def test_curves_without_held_out_images():
    steps = [{"step": step, "loss": 1.0 - 0.1 * step} for step in range(4)]
    epoch = {"step": 3, "epoch": 0, "train_loss": 0.8, "train_accuracy": 0.5, "validation_loss": None}
    alone = draw_curves([*steps, epoch], "training")
    validated = draw_curves([*steps, {**epoch, "validation_loss": 0.7}], "training")
    assert alone.size != validated.size


def test_without_calibration_normals_there_is_no_threshold(demo_folder):
    with pytest.raises(UserError, match="no good images to calibrate with"):
        evaluate(VggCam(), load(demo_folder, 32, ("bottle",)), {**METADATA, "normal_scores": []}, Options())
