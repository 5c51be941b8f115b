"""The whole benchmark, small, with its soak."""

import time
from pathlib import Path

import pytest

from pretrain.command import Names
from scripts.benchmarks import line as module
from scripts.benchmarks.config import Line
from scripts.benchmarks.line import Bare, Borne, measured


@pytest.mark.parametrize(
    ("bears", "expected", "loads"),
    [({1: 0.6, 4: 1.3, 8: 1.0}, [0.55, 1.25, 1.0], [0.85, 0.7, 0.55, 0.55, 0.7, 0.85, 1.0, 1.25, 1.5, 1.25, 1.0]),
     ({1: 9.0}, [1.75], [0.85, 1.0, 1.25, 1.5, 1.75]), ({1: 0.0}, [0.1], [0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1])],
)  # fmt: skip
def test_the_highest_rate_is_found_from_the_one_before(monkeypatch, bears, expected, loads):
    tried = []

    def one_load(folder, images, count, per_s, seconds, budget_ms) -> Borne:
        tried.append(per_s / 100)
        return Borne(count, per_s, 5.0, 9.0, int(per_s * seconds), faults=int(per_s > 100 * bears[count]), put_aside=0)

    monkeypatch.setattr(module, "one_load", one_load)
    arguments = (Path(), Path(), list(bears), Bare(1.0, 2.0, 100.0), 10.0, Line())
    found = module.most_borne(*arguments, time.monotonic() + 100)
    assert [each.per_s / 100 for each in found] == expected and tried == loads
    assert all(each.is_borne == (each.per_s <= 100 * bears[each.stations]) for each in found)
    assert module.most_borne(*arguments, time.monotonic()) == []


@pytest.mark.slow
def test_it_runs_with_a_soak(monkeypatch):
    options = "encoder=random,architecture=timm/test_resnet,dimensions=24,grid=8"
    config = Line(quick=True, stations=Names("2"), budget_ms=5000.0, soak=60)
    figures, lines = measured(config, size_px=64, options=options)
    assert figures["p99_of_bare"] > 0 and figures["borne"][0]["parts"] > 0 and figures["borne"][0]["faults"] == 0
    assert figures["line_steps_p99_ms"]["judging"] > 0 and any("judging" in line for line in lines)
    assert figures["faults_with_one_that_hangs"] == 0 and figures["soak_faults"] == 0
    assert len(figures["memory_mib"]) == 10 and any("soak: 60 parts" in line for line in lines)
