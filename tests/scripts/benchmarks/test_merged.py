"""The benchmark of fitting in parts on a small made product."""

import json

import pytest

from pretrain.command import UserError, run_command
from scripts.benchmarks.config import Merged
from scripts.benchmarks.merged import counts_of, main


def test_one_part_is_what_others_are_compared_with(demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("downstream.methods.patchcore.MIN_PATCHES", 32)
    monkeypatch.setattr("downstream.methods.patchcore.MAX_CANDIDATES", 768)
    record = tmp_path / "record.md"
    options = ("--categories", "bottle", "--quick", "--seeds", "0", "--size-px", "64", "--record", str(record))
    assert run_command(main, Merged, ["--data", str(demo_folder), *options]) == 0
    one, four = json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]
    assert (one["parts"], four["parts"]) == (1, 4) and one["kept"] == four["kept"] == 77
    assert 0.8 * one["radius"] < four["radius"] < 1.5 * one["radius"] and one["auroc"] > 0.7
    assert "    1.00" in record.read_text()


def test_what_is_no_number_of_parts_is_refused():
    assert counts_of(("16", "4")) == [1, 4, 16]
    for typed in ("0", "x"):
        with pytest.raises(UserError, match="--parts"):
            counts_of((typed,))
