"""What is faster on a device, and how images get there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.data.cache import Entry
from pretrain.data.dataset import ImageSet
from pretrain.data.images import Record
from pretrain.training import device as machine
from pretrain.training.device import on_device


@pytest.mark.parametrize(
    ("bf16_seconds", "processes", "expected"), [(0.5, "1", True), (2.0, "1", False), (0.5, "2", False)]
)
def test_bf16_is_for_cpus_on_which_it_is_faster(bf16_seconds, processes, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(machine, "_convolution_seconds", {torch.bfloat16: bf16_seconds, torch.float32: 1.0}.get)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert machine.has_bf16("cpu") is expected


def test_a_convolution_takes_time():
    assert 0 < machine._convolution_seconds(torch.float32) < 60


def test_images_on_the_cpu_are_copies_of_those_asked_for():
    pixels = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    records = tuple(Record(Path(f"{i}.png"), "nut", "train", "good") for i in range(3))
    entries = tuple(Entry(row, 4, 4, bytes([row]), bytes([row])) for row in (4, 0, 2))
    images = ImageSet(Path("data"), 4, records, entries, pixels)
    pixels_of = on_device(images, torch.device("cpu"))
    for positions in (np.array([2, 0, 2]), [2, 0, 2]):
        found = pixels_of(positions)
        assert found.dtype == torch.uint8 and found.device.type == "cpu"
        assert np.array_equal(found.numpy(), pixels[[2, 4, 2]])
    found.zero_()
    assert pixels[2].any()
