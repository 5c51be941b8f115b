"""The whole benchmark, small, with its soak."""

import pytest

from pretrain.command import Names
from scripts.benchmarks.config import Line
from scripts.benchmarks.line import measured


@pytest.mark.slow
def test_it_runs_with_a_soak(monkeypatch):
    options = "encoder=random,architecture=timm/test_resnet,dimensions=24,grid=8"
    config = Line(quick=True, stations=Names("2"), budget_ms=5000.0, soak=60)
    figures, lines = measured(config, size_px=64, options=options)
    assert figures["p99_of_bare"] > 0 and figures["borne"][0]["parts"] > 0 and figures["borne"][0]["faults"] == 0
    assert figures["faults_with_one_that_hangs"] == 0 and figures["soak_faults"] == 0
    assert len(figures["memory_mib"]) == 10 and any("soak: 60 parts" in line for line in lines)
