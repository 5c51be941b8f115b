"""The peak of memory that a cell took."""

import gc

import numpy as np
import torch

from downstream.study import memory
from downstream.study.memory import peak_megabytes, reset_peak

CPU = torch.device("cpu")


def test_the_peak_holds_what_was_used_since_the_reset():
    gc.collect()  # the figure is the whole process's: what earlier tests left must not go meanwhile
    reset_peak(CPU)
    before = peak_megabytes(CPU)
    np.ones(100_000_000)  # 800 MB, gone at once
    assert 500 < peak_megabytes(CPU) - before < 1000
    reset_peak(CPU)
    assert peak_megabytes(CPU) < before + 200


def test_a_system_that_does_not_say_gives_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none/clear_refs")
    reset_peak(CPU)
    assert peak_megabytes(CPU) is None
