"""Short of memory: parts of a batch, and the batch that would fit. A GPU's figures are made up."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from pretrain.command import UserError
from pretrain.training import memory
from pretrain.training.memory import in_parts, largest_batch, told_what_fits

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
FULL_FOR_CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("room", [1, 2, 3, 7])
def test_a_batch_that_is_too_large_goes_in_parts(room, capsys):
    images, asked = torch.arange(7.0)[:, None, None, None].expand(-1, 3, 4, 5), []

    def ask(part: torch.Tensor) -> torch.Tensor:
        asked.append(len(part))
        if len(part) > room:
            raise FULL
        return part[:, 0, 0, 0]

    memory._say.cache_clear()
    assert torch.equal(torch.cat(in_parts(ask, images)), torch.arange(7.0))
    assert asked[0] == 7 and sum(count for count in asked if count <= room) == 7
    assert capsys.readouterr().err.count("the GPU's memory is short: 3 images of 5x4 px at once") == (room < 7)


@pytest.mark.parametrize("error", [FULL, FULL_FOR_CUBLAS])
def test_an_image_that_is_too_large_is_one_sentence(error):
    def ask(part: torch.Tensor) -> None:
        raise error

    with pytest.raises(UserError, match="an image of 5x4 px does not fit .* --device cpu"):
        in_parts(ask, torch.zeros(2, 3, 4, 5))


@pytest.fixture
def gpu_of(monkeypatch):
    """A GPU with so much memory, of which a network takes 100 and each image of a step 10."""

    def make(total: int, bears: int = 10**6) -> SimpleNamespace:
        peak = SimpleNamespace(value=0)

        def train_some(count: int) -> None:
            if count > bears:
                raise FULL
            peak.value = 100 + 10 * count

        fake = {
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda device: setattr(peak, "value", 0),
            "max_memory_allocated": lambda device: peak.value,
            "memory_reserved": lambda device: 0,
            "mem_get_info": lambda device: (total, total),
        }
        for name, function in fake.items():
            monkeypatch.setattr(torch.cuda, name, function)
        return train_some

    return make


@pytest.mark.parametrize(("total", "expected"), [(1000, 80), (1200, 104), (150, 0)])
def test_the_largest_batch_is_found_by_small_ones(total, expected, gpu_of):
    assert largest_batch(gpu_of(total), torch.device("cpu"), 256) == expected
    assert largest_batch(gpu_of(total), torch.device("cpu"), 16) == int((0.95 * total - 100) / 10)  # of few, to one


def test_no_batch_where_not_even_a_few_images_fit(gpu_of):
    assert largest_batch(gpu_of(1000, bears=4), torch.device("cpu"), 256) == 0


@pytest.mark.parametrize(
    ("total", "processes", "words"),
    [
        (1000, 1, "256 images of 224 px do not fit into the GPU's memory: --batch 80 would, with another --out."),
        (1000, 2, "--batch 128 may, with another --out."),
        (100, 1, "try a smaller --size-px, or --device cpu"),
    ],
)
def test_a_training_says_what_would_fit(total, processes, words, gpu_of):
    with (
        pytest.raises(UserError) as refused,
        told_what_fits(256, 224, gpu_of(total), torch.device("cpu"), processes),
    ):
        raise FULL
    assert words in str(refused.value)


def test_other_errors_pass():
    for error in (ZeroDivisionError, RuntimeError):
        with pytest.raises(error), told_what_fits(1, 1, len, torch.device("cpu")):
            raise error
        with pytest.raises(error):
            in_parts(mock.Mock(side_effect=error), torch.zeros(2, 3, 4, 5))
