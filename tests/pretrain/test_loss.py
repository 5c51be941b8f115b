"""NT-Xent against a naive reference, closed forms, lightly, and itself on two ranks."""

import math
import os

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from two_ranks import run_two_ranks

from pretrain import loss as loss_module
from pretrain.loss import chance_loss, nt_xent, nt_xent_reference


def views(n: int, d: int = 8, m: int = 0, seed: int = 0, dtype=torch.float64) -> list[Tensor]:
    """Two views (n, d), the second a disturbed first, and extra negatives (m, d); all want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    first, noise, extra = (torch.randn(k, d, generator=generator, dtype=dtype) for k in (n, n, m))
    return [part.requires_grad_() for part in (first, first + noise, extra)]


def naive(first: Tensor, second: Tensor, temperature: float, extra: Tensor) -> tuple[Tensor, float]:
    """The definition, word for word, with the whole matrix: the loss and the accuracy."""
    z = F.normalize(torch.cat([first, second, extra]), dim=1)
    n, logits = len(first), z @ z.T / temperature
    losses, right = [], 0
    for i in range(2 * n):
        others = [k for k in range(len(z)) if k != i]
        positive = others.index((i + n) % (2 * n))
        losses.append(-logits[i, others].log_softmax(0)[positive])
        right += int(logits[i, others].argmax()) == positive
    return torch.stack(losses).mean(), right / (2 * n)


@pytest.mark.parametrize("n, m", [(1, 0), (1, 3), (7, 0), (7, 5)])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equals_the_definition(n, m, temperature):
    parts = views(n, m=m)
    expected, accuracy = naive(parts[0], parts[1], temperature, parts[2])
    expected_gradients = torch.autograd.grad(expected, parts)
    found = nt_xent(parts[0], parts[1], temperature, parts[2] if m else None)
    torch.testing.assert_close(found.loss, expected, rtol=1e-12, atol=1e-12)
    assert found.accuracy == pytest.approx(accuracy, abs=1e-12)
    gradients = torch.autograd.grad(found.loss, parts[: 3 if m else 2])
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=False):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    if m:
        assert gradients[2].abs().max() > 1e-4


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("block_rows", [3, 512])
def test_blocks_equal_the_reference_that_has_the_matrix_whole(n, block_rows):
    first, second, _ = views(n)
    expected, found = nt_xent_reference(first, second, 0.2), nt_xent(first, second, 0.2, block_rows=block_rows).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (first, second)) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_lightly(dtype, tolerance):
    from lightly.loss import NTXentLoss

    first, second, _ = views(32, 16, dtype=dtype)
    expected, found = NTXentLoss(0.1)(first, second), nt_xent(first, second, 0.1).loss
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
    pairs = zip(
        torch.autograd.grad(found, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    )
    for gradient, expected_gradient in pairs:
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=tolerance)


def test_closed_forms():
    same = torch.ones(16, 4)
    collapsed = nt_xent(same, same, 0.1)
    assert collapsed.loss == pytest.approx(math.log(31), abs=1e-6) == chance_loss(16)
    assert collapsed.accuracy == 0
    assert nt_xent(same, same, 0.1, same[:5]).loss == pytest.approx(math.log(36), abs=1e-6) == chance_loss(16, 5)
    # Pairs alike, different pairs at right angles: the positive of weight exp(1/t), the 2N - 2 others of weight 1.
    apart = nt_xent(torch.eye(8), torch.eye(8) * 3, 0.5)
    assert apart.loss == pytest.approx(math.log(1 + 14 * math.exp(-2)), abs=1e-6)
    assert apart.accuracy == 1
    # A negative that is the very same as a view spoils its pair only.
    assert nt_xent(torch.eye(8), torch.eye(8), 0.5, torch.eye(8)[:1]).accuracy == pytest.approx(14 / 16)


def test_gradcheck():
    first, second, extra = views(5, 3, m=2)
    assert torch.autograd.gradcheck(lambda a, b, c: nt_xent(a, b, 0.3, c, block_rows=3).loss, (first, second, extra))


def test_block_size_does_not_matter():
    first, second, extra = views(11, m=3)
    whole = nt_xent(first, second, 0.1, extra, block_rows=100)
    for block_rows in (1, 4, 11, 22):
        found = nt_xent(first, second, 0.1, extra, block_rows)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(found.loss, (first, extra)),
            torch.autograd.grad(whole.loss, (first, extra), retain_graph=True),
            rtol=1e-10,
            atol=1e-14,
        )


def test_order_and_scale_do_not_matter():
    first, second, extra = views(9, m=4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    expected = nt_xent(first, second, 0.2, extra)
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.2, extra.flip(0)), expected)
    torch.testing.assert_close(nt_xent(second, first, 0.2, extra), expected)
    torch.testing.assert_close(nt_xent(first * 7, second * 0.01, 0.2, extra * 100), expected)
    assert abs(nt_xent(first[order], second, 0.2, extra).loss - expected.loss) > 0.1


def test_autocast_does_not_reach_the_logits():
    first, second, _ = views(16, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(first, second, 0.1).loss
        rounded = F.normalize(first) @ F.normalize(second).T
    expected, _ = naive(first.double(), second.double(), 0.1, first[:0].double())
    assert (found.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert first.grad.dtype == torch.bfloat16 and first.grad.abs().max() > 0


def test_positions_of_feature_maps_are_rows():
    first, second = (torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    rows = [maps.movedim(1, -1).flatten(0, 2) for maps in (first, second)]
    assert rows[0].shape == (24, 6) and torch.equal(rows[0][12 + 4 + 2], first[1, :, 1, 2])
    found = nt_xent(*rows, 0.1)
    assert found.loss == pytest.approx(naive(*rows, 0.1, rows[0][:0])[0].item(), rel=1e-5)


def test_nan_is_not_hidden():
    first, second, _ = views(8)
    damaged = first.detach().clone()
    damaged[3, 2] = math.nan
    assert nt_xent(damaged, second, 0.1).loss.isnan()
    damaged[3, 2] = math.inf
    assert nt_xent(damaged, second, 0.1).loss.isnan()


def test_no_gradient_is_asked_or_given():
    first, second, _ = views(4)
    with torch.no_grad():
        assert not nt_xent(first, second, 0.1).loss.requires_grad
    found = nt_xent(first, second.detach(), 0.1)
    assert found.loss.requires_grad and not found.accuracy.requires_grad


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 3, 2), (4, 3, 2))])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match=r"must be \(n, d\) alike"):
        nt_xent(*map(torch.ones, shapes), 0.1)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        nt_xent(torch.ones(2, 2), torch.ones(2, 2), 0.0)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_memory_does_not_grow_with_the_square():
    from lightly.loss import NTXentLoss

    n = 1024
    first, second, _ = views(n, 16, dtype=torch.float32)
    with Largest() as ours:
        nt_xent(first, second, 0.1, block_rows=64).loss.backward()
    with Largest() as theirs:
        NTXentLoss(0.1)(first, second).backward()
    assert ours.elements == 64 * 2 * n
    assert theirs.elements > 10 * ours.elements


def loss_and_gradients(model: nn.Module, projector: nn.Module, inputs: list[Tensor], scale: float) -> list[Tensor]:
    outputs = model(torch.cat(inputs)).split([len(part) for part in inputs])
    found = nt_xent(outputs[0], outputs[1], 0.2, outputs[2], block_rows=3)
    (found.loss * scale).backward()
    return [found.loss.detach(), found.accuracy, *(parameter.grad for parameter in projector.parameters())]


def make_projector() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def one_of_two_ranks(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    projector = make_projector()
    wrapped = nn.parallel.DistributedDataParallel(projector)
    halves = [part.detach().chunk(2)[rank] for part in views(10, m=6)]
    results = loss_and_gradients(wrapped, projector, halves, 3.0)
    gathered, gather = [], loss_module._gather
    loss_module._gather = lambda local: gathered.append(tuple(local.shape)) or gather(local)
    for _ in range(3):  # sizes are known by now
        nt_xent(*halves[:2], 0.2, halves[2])
    loss_module._gather = gather
    message = ""
    try:
        nt_xent(halves[0][: 5 - rank], halves[1][: 5 - rank], 0.2)
    except ValueError as error:
        message = str(error)
    torch.save([results, message, gathered], f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    # The wrapped network still holds gloo's threads, which now and then abort an interpreter that ends as usual.
    os._exit(0)


def test_two_ranks_equal_one_process(tmp_path):
    run_two_ranks(one_of_two_ranks, str(tmp_path))
    projector = make_projector()
    expected = loss_and_gradients(projector, projector, [part.detach() for part in views(10, m=6)], 3.0)
    for rank in range(2):
        found, message, gathered = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert "[[5, 0], [4, 0]]" in message
        assert gathered == [(13, 8), (2,)] * 3  # no further one, of the sizes: reading them makes a GPU wait
    assert all(tensor.abs().max() > 1e-3 for tensor in expected)
