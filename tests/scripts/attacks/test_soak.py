"""A service that is asked for hours: what grows, and what is answered otherwise than before."""

import os
import random
import subprocess
from contextlib import closing, nullcontext

import pytest

from scripts.attacks import soak
from scripts.attacks.material import CATEGORY, Material
from scripts.attacks.soak import Sample, Soak, judged, sample


@pytest.mark.parametrize(
    ("grown", "said"),
    [
        (Sample(0, 0, 0, 0, 9), None),
        (Sample(0, 6, 0, 0, 0), "memory_mb grows by 6."),
        (Sample(0, 0, 2, 0, 0), "descriptors grows by 2.0"),
        (Sample(0, 0, 0, 2, 0), "threads grows by 2.0"),
    ],
)
def test_growth_is_told_from_noise(grown, said):
    """By the slope: a peak, wherever it is, is none."""
    samples = [
        Sample(1000 * n, 500 + grown[1] * n + 9 * (n == 8), 60 + grown[2] * n, 20 + grown[3] * n, grown[4] * n)
        for n in range(12)
    ]
    failed = judged(samples)[1]
    assert failed is None if said is None else said in failed


def test_what_a_process_and_its_children_hold_is_counted(tmp_path):
    (tmp_path / "kept").write_bytes(bytes(3_000_000))
    alone = sample(os.getpid(), tmp_path, 7)
    child = subprocess.Popen(["sleep", "60"])
    both = sample(os.getpid(), tmp_path, 7)
    child.kill()
    child.wait()
    assert alone.requests == 7 and alone.memory_mb > 50 and alone.folder_mb == 3
    assert both.threads == alone.threads + 1 and both.descriptors > alone.descriptors


def test_a_fault_during_a_soak_is_found(faulty_service, tmp_path, monkeypatch):
    good = tmp_path / "demo" / CATEGORY / "test" / "good"
    good.mkdir(parents=True)
    (good / "0.png").write_bytes(b"image")
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(soak, "served", lambda *_: nullcontext(faulty_service))
    monkeypatch.setattr(soak, "REQUESTS", (Soak.whole,))
    monkeypatch.setattr(soak, "REQUESTS_A_SECOND", 1000)
    with closing(Soak(Material(tmp_path))) as attack:
        assert attack.attempt(random.Random(0), tmp_path) is None
        faulty_service.score = 2.0
        assert "answered 1.0 is now answered 2.0" in attack.attempt(random.Random(0), tmp_path)
        assert attack.conclude(tmp_path) is None and "too few" in attack.said
        assert (tmp_path / "samples.csv").read_text().startswith("requests,")
