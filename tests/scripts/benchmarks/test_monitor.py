"""The monitor beside real defects, on a small made product."""

import json
import math

from pretrain.command import run_command
from scripts.benchmarks.config import Monitor
from scripts.benchmarks.monitor import main, rank_correlations


def test_ranks_are_compared_with_those_of_real_defects():
    assert rank_correlations([(0.5, 0.9, 0.6), (0.6, 0.85, 0.7), (0.9, 0.7, 0.71)]) == {"nearest": 1, "padim": -1}


def test_it_judges_each_encoder_three_ways_and_is_recorded(demo_folder, tmp_path, capsys):
    options = ["--data", str(demo_folder), "--categories", "hazelnut,bottle", "--encoders", "random,imagenet"]
    small = ["--method", "padim", "--size-px", "64", "--monitor-px", "32", "--record", str(tmp_path / "record.md")]
    assert run_command(main, Monitor, [*options, *small, "--quick"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (category,) = result["by_category"]  # --quick
    rank = result["by_category"][category]["spearman"]["nearest"]
    assert result["mean_rank"] == (0 if math.isnan(rank) else rank)  # no rank where both find as much
    rows = result["by_category"][category]["encoders"]
    assert list(rows) == ["random", "imagenet"] and all(len(row) == len(result["columns"]) for row in rows.values())
    assert all(0 <= figure <= 1 for row in rows.values() for figure in row)
    assert rows["random"] != rows["imagenet"] and "rank correlation" in (tmp_path / "record.md").read_text()
