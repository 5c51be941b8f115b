"""What is faster on a device, and how images get there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.command import UserError
from pretrain.data.cache import Entry
from pretrain.data.dataset import ImageSet
from pretrain.data.images import Record
from pretrain.training import device as machine
from pretrain.training.device import DeviceImages, choose_device, full_precision, kernels, transferred


@pytest.mark.parametrize(
    ("bf16_seconds", "processes", "expected"), [(0.5, "1", True), (2.0, "1", False), (0.5, "2", False)]
)
def test_bf16_is_for_cpus_on_which_it_is_faster(bf16_seconds, processes, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(machine, "_convolution_seconds", {torch.bfloat16: bf16_seconds, torch.float32: 1.0}.get)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert machine.has_bf16("cpu") is expected


@pytest.mark.parametrize("has_gpu", [False, True])
def test_auto_takes_the_gpu_where_there_is_one_and_says_so_once(has_gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU of 2030")
    machine._say_gpu.cache_clear()
    chosen = [choose_device("auto").type, choose_device("auto").type, choose_device("cpu").type]
    assert chosen == (["cuda", "cuda", "cpu"] if has_gpu else ["cpu"] * 3)
    assert capsys.readouterr().err.count("a GPU of 2030; --device cpu takes the CPU") == has_gpu
    with pytest.raises(UserError, match="no device gpu; choose from auto, cpu, cuda"):
        choose_device("gpu")
    machine._say_gpu.cache_clear()


def test_fp32_is_fp32_within_and_what_it_was_after():
    before = torch.backends.cudnn.allow_tf32
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_what_is_there_already_is_not_copied():
    tensor = torch.ones(3)
    assert transferred(tensor, torch.device("cpu")) is tensor


def test_a_convolution_takes_time():
    assert 0 < machine._convolution_seconds(torch.float32) < 60


def test_images_on_the_cpu_are_copies_of_those_asked_for():
    pixels = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    records = tuple(Record(Path(f"{i}.png"), "nut", "train", "good") for i in range(3))
    entries = tuple(Entry(row, 4, 4, bytes([row]), bytes([row])) for row in (4, 0, 2))
    images = ImageSet(Path("data"), 4, records, entries, pixels)
    pixels_of = DeviceImages(images, torch.device("cpu"))
    for positions in (np.array([2, 0, 2]), [2, 0, 2]):
        found = pixels_of(positions)
        assert found.dtype == torch.uint8 and found.device.type == "cpu"
        assert np.array_equal(found.numpy(), pixels[[2, 4, 2]])
    found.zero_()
    assert pixels[2].any()


@pytest.mark.parametrize("is_asked", [True, False])
def test_kernels_are_the_fastest_or_give_the_same_bits(is_asked):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with kernels(is_asked):
        assert torch.are_deterministic_algorithms_enabled() == is_asked
        assert torch.backends.cudnn.benchmark != is_asked
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("free", [10**12, 0])
def test_a_gpu_gets_the_images_asked_for_read_ahead_or_from_its_memory(free, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    records = tuple(Record(Path(f"{i}.png"), "nut", "train", "good") for i in range(9))
    images = ImageSet(Path("data"), 4, records, tuple(Entry(i, 4, 4, bytes([i]), bytes([i])) for i in range(9)), pixels)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    pixels_of = DeviceImages(images, torch.device("cuda"))
    assert pixels_of.can_read_ahead == (free == 0)
    for positions in (np.array([2, 0, 8]), np.array([5, 5]), np.array([1])):
        if pixels_of.can_read_ahead and len(positions) > 1:
            pixels_of.read_ahead(positions)
        assert np.array_equal(pixels_of(positions).cpu().numpy(), pixels[positions])
