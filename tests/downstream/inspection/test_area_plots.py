"""What is drawn to choose an area."""

import csv
import json

from fitted_models import run_area
from PIL import Image

from downstream.inspection.inspector import Inspector


def test_finetune_draws_and_recommends(area_model, demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--model", area_model, "--data", demo_folder, "--synthetic", "10", "--out", out)
    assert run_area("finetune", *words) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "finetune.json").read_text())
    assert f"--area {found['recommended_area_px']}" in said and "8 of 12 good images were learned from" in said
    best = max(row["balanced_accuracy"] for row in found["areas"])
    firsts = [row["area_px"] for row in found["areas"] if row["balanced_accuracy"] == best]
    assert found["recommended_area_px"] == min(firsts)
    with open(out / "areas.csv", newline="") as file:
        assert [int(row["area_px"]) for row in csv.DictReader(file)] == [row["area_px"] for row in found["areas"]]
    for name in ("regions", "sizes", "areas", "samples"):
        with Image.open(out / f"{name}.png") as drawn:
            assert min(drawn.size) > 200
    assert Inspector.load(area_model).area_rule is None  # to recommend is not to decide
    again = tmp_path / "again"
    assert run_area("finetune", *words[:-1], again) == 0
    assert (again / "areas.csv").read_text() == (out / "areas.csv").read_text()
