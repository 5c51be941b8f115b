"""Rounds, targets and the last line, which every benchmark shares; and that each one answers --help."""

import json
from dataclasses import replace
from math import nan

import pytest
from conftest import REPOSITORY

from pretrain.command import run_command
from scripts.benchmarks import config
from scripts.benchmarks.config import Benchmark
from scripts.benchmarks.rounds import finish, in_rounds, speedup

BENCHMARKS = sorted(
    path.stem
    for path in (REPOSITORY / "scripts/benchmarks").glob("*.py")
    if path.stem not in ("by_size", "config", "peers", "rounds")
)


def test_contestants_take_turns_and_the_first_turn_does_not_count():
    turns = []
    contestants = {name: lambda name=name: turns.append(name) or len(turns) for name in "ab"}
    assert in_rounds(2, contestants) == {"a": [3, 5], "b": [4, 6]}
    assert turns == list("ababab")
    assert in_rounds(1, contestants, warm_up=False) == {"a": [7], "b": [8]}


def test_a_speedup_is_the_median_of_each_rounds_own():
    assert speedup([1, 2, 10], [3, 4, 20]) == 2  # of 3, 2, 2
    with pytest.raises(ValueError):
        speedup([1], [1, 2])


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"rate": 2.0, "peak": 1.0}, []),
        ({"rate": 1.9, "peak": 1.1}, ["rate", "peak"]),
        ({"rate": nan, "peak": 0}, ["rate"]),
    ],
)
def test_targets_that_are_missed_are_said_and_checked(figures, missed, capsys, tmp_path):
    asked = Benchmark(record=tmp_path / "R.md")
    targets = {"at_least": {"rate": 2.0}, "at_most": {"peak": 1.0}}
    assert finish("cache", asked, ["a table"], figures, **targets) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0] == "a table" and table[-1] == (f"missed: {', '.join(missed)}" if missed else "all targets met")
    result = json.loads(last)
    assert result["missed"] == missed and result["benchmark"] == "cache" and {"cores", "torch"} <= result.keys()
    assert "    a table\n" in (tmp_path / "R.md").read_text()
    assert finish("cache", replace(asked, check=True), [], figures, **targets) == bool(missed)
    assert finish("cache", Benchmark(check=True), [], figures, missed=["a finite loss"]) == 1


def test_a_target_without_its_figure_is_no_target_met():
    with pytest.raises(KeyError):
        finish("cache", Benchmark(), [], {}, at_least={"rate": 1.0})


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_options(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        run_command(print, getattr(config, name.capitalize()), ["--help"])
    assert "--quick" in capsys.readouterr().out
    source = (REPOSITORY / f"scripts/benchmarks/{name}.py").read_text()
    assert f'start("scripts.benchmarks.{name}:main", {name.capitalize()})' in source
