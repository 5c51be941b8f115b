"""The study's table: means and deviations over seeds, of cells of this format."""

import json

import pytest

from downstream.restoration.config import RestorationStudy
from downstream.restoration.table import FORMAT, cell_file, markdown_lines, read_cell, restoration_table
from pretrain.command import Names, UserError


def test_figures_are_means_and_deviations_over_seeds(tmp_path):
    for seed, value in enumerate((30.0, 32.0)):
        figures = dict.fromkeys(("psnr", "ssim", "masked_psnr", "masked_ssim", "inflated_psnr"), {"value": value})
        cell = {"format": FORMAT, "figures": {"degraded input": figures, "restored": figures}}
        cell["detection_auroc"] = dict.fromkeys(("clean", "degraded input", "restored"), 0.5)
        cell |= {"steps": 5, "minutes": 1.0, "seconds_per_megapixel": 1.0}
        (tmp_path / f"sadnet-seed-{seed}").mkdir()
        (tmp_path / f"sadnet-seed-{seed}" / "evaluation.json").write_text(json.dumps(cell))
    config = RestorationStudy(data=tmp_path, train=Names("nut"), test=Names("bolt"), out=tmp_path)
    (line,) = [
        line for line in markdown_lines(restoration_table(config, ["sadnet"], [0, 1])) if line.startswith("| sadnet")
    ]
    assert line.startswith("| sadnet | 31.00 ± 1.41 | 31.000 ± 1.414 | 31.00 ± 1.41 |")


def test_a_cell_of_another_format_is_refused(tmp_path):
    file = cell_file(tmp_path, "sadnet", 0)
    file.parent.mkdir()
    file.write_text(json.dumps({"by": {}}))
    with pytest.raises(UserError, match="has format 1, and this heldout reads format 2: choose another --out"):
        read_cell(file)


def test_a_cell_in_the_place_of_another_is_refused(tmp_path):
    file = cell_file(tmp_path, "sadnet", 1)
    file.parent.mkdir()
    file.write_text(json.dumps({"format": FORMAT, "cell": cell_file(tmp_path, "sadnet", 0).parent.name}))
    with pytest.raises(UserError, match="has the figures of sadnet-seed-0: remove it"):
        read_cell(file)
