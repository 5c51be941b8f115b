"""Who is fitted to, corrected and judged; and the whole benchmark on a small made product."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.contract.method import Images
from pretrain.command import Names, UserError, run_command
from pretrain.data.dataset import load
from pretrain.encoder import Encoder
from scripts.benchmarks import feedback
from scripts.benchmarks.config import Feedback
from scripts.benchmarks.feedback import Cell, corrections, draw, feedbacks, gains, main, stream_of, summary, table


@pytest.fixture
def few_fresh(monkeypatch):
    """The demo set has twelve good training images."""
    monkeypatch.setattr(feedback, "FRESH", 4)


@pytest.mark.usefixtures("few_fresh")
def test_nobody_is_judged_who_was_fitted_to_or_corrected(demo_folder):
    images = load(demo_folder, 32).of("hazelnut")
    stream = stream_of(images, "5", 0, 3, 4)
    parts = [*stream.fitted, *stream.good, *stream.defective, *stream.judged]
    assert len(parts) == len({*parts}) == 5 + 3 + 3 + 8
    assert all(images.records[i].split == "train" for i in stream.fitted)
    assert not any(images.records[i].is_anomaly for i in stream.good)
    assert all(images.records[i].is_anomaly for i in stream.defective)
    every = stream_of(images, "all", 0, 3, 4)
    assert every[1:] == stream[1:] and {*stream.fitted} < {*every.fitted}
    assert stream_of(images, "5", 1, 3, 4) != stream
    with pytest.raises(UserError, match="too few: it takes more than 4 of the first, and more than 99 good"):
        stream_of(images, "5", 0, 99, 4)


def test_some_is_said_wrongly_and_on_a_tenth_little():
    stream = feedback.Stream([], [*range(100)], [*range(100, 200)], [])
    said = {name: (good, defective) for name, good, defective in corrections(stream, [5, 100], 0.05, 0)}
    assert said["5 of each"] == ([0, 1, 2, 3, 4], [100, 101, 102, 103, 104])
    assert [len(part) for part in said["on a tenth"]] == [10, 10]
    good, defective = said["with mistakes"]
    wrong = sum(i >= 100 for i in good) + sum(i < 100 for i in defective)
    assert 4 <= wrong <= 17 and sorted([*good, *defective]) == [*range(200)]


def test_gains_are_over_the_same_model_without_feedback():
    cells = [
        Cell(category, "16", order, name, 0.9, accuracy + 0.1 * order, 0, 0)
        for category, accuracies in (("a", (0.5, 0.7)), ("b", (0.6, 0.5)))
        for order in (0, 1)
        for name, accuracy in zip(("none", "20 of each"), accuracies, strict=True)
    ]
    assert gains(cells, "16", "20 of each") == pytest.approx([0.05, 0.05])
    assert gains(cells, "16", "20 of each", "b") == pytest.approx([-0.1, -0.1])
    config = Feedback(normals=("16",), corrected=("20",))
    cells += [cell._replace(feedback="with mistakes") for cell in cells if cell.feedback == "none"]
    figures = summary(cells, config)
    assert (figures["gain_16"], figures["worst_16"], figures["mistakes_16"]) == pytest.approx((0.05, -0.1, 0))


@pytest.mark.usefixtures("few_fresh")
def test_orders_are_counted_for_each_number_of_normals_and_every_kind_of_feedback_is_drawn(tmp_path):
    config = Feedback(normals=Names("4,all"), corrected=Names("5,20"))
    cells = [Cell("nut", normals, order, feedback, 0.9, 0.8, 0.1, 0.1)
             for normals, orders in (("4", 3), ("all", 2)) for order in range(orders)
             for feedback in feedbacks(config)]  # fmt: skip
    said = [line.strip() for line in table(cells, config)]
    assert "fitted to 4 good images, 3 orders" in said and "fitted to all good images, 2 orders" in said
    pictures = set()
    for other in (None, "on a tenth", "with mistakes"):
        changed = [cell._replace(auroc=0.5) if cell.feedback == other else cell for cell in cells]
        draw(changed, config, tmp_path / "curves.png")
        pictures.add((tmp_path / "curves.png").read_bytes())
    assert len(pictures) == 3


@pytest.mark.usefixtures("few_fresh")
def test_what_is_judged_in_a_fraction_of_the_time_is_what_the_method_says(demo_folder):
    images = load(demo_folder, 64).of("hazelnut")
    stream = stream_of(images, "6", 0, 6, 6)
    inspector = feedback.fitted(images, stream.fitted, Encoder("timm/test_resnet", 0), 0)
    seen = feedback.seen_by(inspector.method, images, stream.judged)
    learned = feedback.taught(inspector, feedback.lessons_of(images, stream.good, stream.defective))
    told = copy.copy(learned.method)
    told.evidence_weights_ = torch.randn(2 * inspector.method.axes_.shape[1] + 1)
    told.evidence_range_ = [-1.0, 3.0, 2.0]
    for method in (inspector.method, learned.method, told):
        expected = next(method.predict(Images(images.subset(stream.judged)))).scores
        torch.testing.assert_close(feedback.scores_of(method, seen), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("few_fresh")
def test_it_runs_is_recorded_and_drawn(demo_folder, tmp_path, capsys):
    options = ["--categories", "hazelnut", "--quick", "--size-px", "64", "--normals", "6", "--corrected", "2,4"]
    files = [f"--{name}={tmp_path / name}" for name in ("record", "figure", "cells")]
    results = []
    for _ in range(2):  # the second time it finds all cells finished
        assert run_command(main, Feedback, ["--data", str(demo_folder), *options, *files]) == 0
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    result, again = results
    assert again["cells"] == result["cells"] and len((tmp_path / "cells").read_text().splitlines()) == 5
    assert [cell["feedback"] for cell in result["cells"]] == [
        "none", "2 of each", "4 of each", "on a tenth", "with mistakes",
    ]  # fmt: skip
    assert result["gain_6"] == pytest.approx(
        result["cells"][2]["balanced_accuracy"] - result["cells"][0]["balanced_accuracy"]
    )
    assert "fitted to 6 good images" in (tmp_path / "record").read_text()
    assert np.ptp(np.asarray(Image.open(tmp_path / "figure"))) > 100
