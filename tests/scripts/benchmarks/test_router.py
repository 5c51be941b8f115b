"""The benchmark of the router: what it asks is what the router of a service asks, and it is recorded."""

import json

import pytest
import torch
from fitted_models import run_detect

from downstream.inspection.inspector import Inspector
from downstream.service.routing import FARTHEST
from pretrain.command import UserError, run_command
from pretrain.data.dataset import load
from scripts.benchmarks.config import Router
from scripts.benchmarks.router import REFUSED, answer, main, product_of


def test_an_image_is_asked_for_among_all_and_without_its_own_product():
    asked = answer("nut", False, {"nut": 0.5, "bolt": FARTHEST - 0.1, "pill": 9.0})
    assert (asked.among_all, asked.without_own) == ("nut", "bolt")
    asked = answer("nut", True, {"nut": FARTHEST + 0.1, "bolt": FARTHEST + 0.2})
    assert (asked.among_all, asked.without_own) == (REFUSED, REFUSED)
    asked = answer("capsule", True, {"capsule": 1.42, "solar_cell": 1.78})  # as far as real ones lay
    assert (asked.among_all, asked.without_own) == ("capsule", REFUSED)


def test_a_product_is_known_as_its_fitted_model_knows_it(demo_folder, tmp_path):
    options = ("--method", "padim", "--size-px", "64")
    assert run_detect("fit", "--data", demo_folder, "--category", "bottle", "--out", tmp_path / "bottle", *options) == 0
    fitted = Inspector.load(tmp_path / "bottle").method
    images = load(demo_folder, 64).of("bottle")
    product = product_of(images, Router(data=demo_folder, method="padim", size_px=64))
    assert torch.allclose(product.method.pooled_, fitted.pooled_, rtol=1e-4)


def test_it_runs_and_is_recorded(demo_folder, tmp_path, capsys):
    record = tmp_path / "record.md"
    options = ("--categories", "bottle,leather", "--method", "padim", "--size-px", "64", "--record", str(record))
    assert run_command(main, Router, ["--data", str(demo_folder), *options]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["found"]["bottle"]["good"] == {"bottle": 6}
    assert result["refused_without_own"] == 1  # a bottle is no leather
    assert "6/0/0" in record.read_text() and "Finding the product" in record.read_text()
    with pytest.raises(UserError, match="two or more"):
        main(Router(data=demo_folder, categories=("bottle",), size_px=64))
