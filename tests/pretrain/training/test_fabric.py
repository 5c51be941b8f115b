"""How many processes, at what precision, on which device, and which share of a batch is whose."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain.command import UserError
from pretrain.training import fabric as fabric_module
from pretrain.training.fabric import make_fabric, rank_positions


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
def test_what_is_not_there_is_refused(device, precision, words, without_cuda):
    with pytest.raises(UserError, match=words):
        make_fabric(device, precision)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_what_is_left_open_suits_the_machine(has_bf16, expected, without_cuda, monkeypatch):
    monkeypatch.setattr(fabric_module, "has_bf16", lambda accelerator: has_bf16)
    fabric = make_fabric("auto", None)
    assert (fabric.device, fabric.world_size, fabric.is_global_zero) == (torch.device("cpu"), 1, True)
    assert fabric.strategy.precision.precision == expected
    assert make_fabric("cpu", "64-true").strategy.precision.precision == "64-true"


@pytest.mark.parametrize(("batch", "ranks"), [(8, 1), (8, 2), (12, 4)])
def test_every_position_belongs_to_one_rank(batch, ranks):
    shares = [rank_positions(batch, SimpleNamespace(world_size=ranks, global_rank=rank)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {batch // ranks}
    assert np.concatenate(shares).tolist() == list(range(batch))
