"""Which device, what precision, and which share of a batch is whose."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain.command import UserError
from pretrain.data.cache import Entry
from pretrain.data.dataset import ImageSet
from pretrain.data.images import Record
from pretrain.training import device as machine
from pretrain.training.device import make_fabric, on_device, rank_positions


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("tpu", None, "there is no device tpu; choose from auto, cpu, cuda"),
        ("cuda", None, "no CUDA device here; use --device cpu"),
        ("cpu", "16-mixed", "there is no precision 16-mixed; choose from bf16-mixed, 32-true, 64-true"),
    ],
)
def test_what_is_not_there_is_a_mistake(device, precision, words, without_cuda):
    with pytest.raises(UserError, match=words):
        make_fabric(device, precision)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_what_is_left_open_suits_the_machine(has_bf16, expected, without_cuda, monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda accelerator: has_bf16)
    fabric = make_fabric("auto", None)
    assert (fabric.device, fabric.world_size, fabric.is_global_zero) == (torch.device("cpu"), 1, True)
    assert fabric.strategy.precision.precision == expected
    assert make_fabric("cpu", "64-true").strategy.precision.precision == "64-true"


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


@pytest.mark.parametrize(("batch", "ranks"), [(8, 1), (8, 2), (12, 4)])
def test_every_position_belongs_to_one_rank(batch, ranks):
    shares = [rank_positions(batch, SimpleNamespace(world_size=ranks, global_rank=rank)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {batch // ranks}
    assert np.concatenate(shares).tolist() == list(range(batch))


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
