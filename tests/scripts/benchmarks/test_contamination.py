"""Who is fitted to, mixed in and judged; and the whole benchmark on a small made product."""

import json

import pytest

from pretrain.command import UserError, run_command
from pretrain.data.dataset import load
from scripts.benchmarks.config import Contamination
from scripts.benchmarks.contamination import Cell, main, parts_of, row, shares_of


def test_nobody_is_judged_who_was_fitted_to(demo_folder):
    images = load(demo_folder, 32).of("hazelnut")
    parts = parts_of(images, 0.2, 300, seed=0)
    assert not set(parts.judged) & {*parts.good, *parts.mixed_in}
    assert all(images.records[i].split == "train" for i in parts.good)
    assert all(images.records[i].is_anomaly for i in parts.mixed_in)
    assert {images.records[i].is_anomaly for i in parts.judged} == {False, True}
    assert len(parts.good) == min(12, 4 * len(parts.mixed_in))  # one in five is then defective
    assert parts == parts_of(images, 0.2, 300, seed=0) != parts_of(images, 0.2, 300, seed=1)


def test_losses_are_against_nothing_mixed_in():
    cells = [Cell("a", 0, share, leaves_out, 0.9 - share, 0.8) for share in (0.0, 0.1) for leaves_out in (False, True)]
    assert row("mean lost", 0.1, cells, lost=True).split() == ["mean", "lost", "10", "0.100", "0.000", "0.100", "0.000"]


@pytest.mark.parametrize("shares", [("many",), ("60",), ("-5",)])
def test_shares_are_percentages_below_half(shares):
    assert shares_of(("5", "20")) == [0, 0.05, 0.2]
    with pytest.raises(UserError, match="--shares"):
        shares_of(shares)


def test_it_runs_and_is_recorded(demo_folder, tmp_path, capsys):
    record = tmp_path / "record.md"
    options = ("--categories", "hazelnut", "--quick", "--method", "padim", "--size-px", "64", "--record", str(record))
    assert run_command(main, Contamination, ["--data", str(demo_folder), *options]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(cell["share"], cell["leaves_out"]) for cell in result["cells"]] == [
        (0.0, False), (0.0, True), (0.1, False), (0.1, True)
    ]  # fmt: skip
    assert all(0 <= cell["auroc"] <= 1 for cell in result["cells"])
    assert "mean lost" in record.read_text()
