"""What restorers learn from: by hand, the published form, and what the mask's weight does."""

import math

import pytest
import torch

from baselines.restoration.loss import restoration_loss
from pretrain.command import UserError


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    restored, clean = (torch.rand(2, 3, 6, 5, generator=generator) for _ in range(2))
    masks = torch.zeros(2, 6, 5, dtype=torch.bool)
    masks[0, 1:3, 2:4] = True
    return restored, clean, masks


def by_hand(restored, clean, masks, alpha, beta, loss_weights, is_weighted) -> float:
    squares = sizes = total = 0.0
    logarithms = 0.0
    for number in range(len(restored)):
        own, own_total = 0.0, 0.0
        for y in range(6):
            for x in range(5):
                w = alpha + beta * bool(masks[number, y, x])
                for c in range(3):
                    error = float(restored[number, c, y, x] - clean[number, c, y, x])
                    squares, sizes, total = squares + w * error**2, sizes + w * abs(error), total + w
                    factor = w if is_weighted else 1.0
                    own, own_total = own + factor * error**2, own_total + factor
        logarithms += 10 / math.log(10) * math.log(own / own_total + 1e-8) / len(restored)
    c0, c1, c2 = loss_weights
    return c0 * squares / total + c1 * sizes / total + c2 * logarithms


@pytest.mark.parametrize("weighting", ["published", "repaired"])
def test_loss_is_the_formula(pair, weighting):
    found = restoration_loss(*pair, 1.0, 2.0, (1.0, 0.7, 0.5), weighting)
    expected = by_hand(*pair, 1.0, 2.0, (1.0, 0.7, 0.5), weighting == "repaired")
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_a_mask_all_weightings_are_one(pair):
    restored, clean, masks = pair
    values = {
        weighting: restoration_loss(restored, clean, torch.zeros_like(masks), 1, 2, (1, 0, 0.5), weighting).item()
        for weighting in ("published", "repaired", "balanced")
    }
    assert len({round(value, 5) for value in values.values()}) == 1


def test_balanced_counts_a_small_mask_as_much_as_a_large_one(pair):
    """alpha * MSE + beta * MSE in the mask, divided by alpha + beta, whatever the mask's size."""
    restored, clean, _ = pair
    squares = (restored - clean).square()[:1]
    for size in (1, 3):
        mask = torch.zeros(1, 6, 5, dtype=torch.bool)
        mask[0, :size, :size] = True
        expected = (squares.mean() + 3 * squares[..., :size, :size].mean()) / 4
        found = restoration_loss(restored[:1], clean[:1], mask, 1.0, 3.0, (1, 0, 0), "balanced")
        torch.testing.assert_close(found, expected)


def test_the_published_minus_psnr_swamps_the_mask_and_the_repair_does_not(pair):
    """How much more a pixel of the mask is pulled, against the same loss without its weight."""
    _, clean, masks = pair
    gains = {}
    for weighting in ("published", "repaired"):
        slopes = []
        for beta in (0.0, 2.0):
            restored = (clean + 0.01).requires_grad_()
            restoration_loss(restored, clean, masks, 1.0, beta, (1, 0, 0.5), weighting).backward()
            slopes.append(restored.grad[0, 0, 1, 2].item())
        gains[weighting] = slopes[1] / slopes[0]
    assert gains["published"] == pytest.approx(1, abs=0.01)
    assert gains["repaired"] > 2


def test_weights_that_teach_nothing_are_refused(pair):
    for alpha, beta, loss_weights in ((0, 1, (1, 0, 0)), (1, -1, (1, 0, 0)), (1, math.nan, (1, 0, 0)),
                                      (1, 1, (0, 0, 0)), (1, 1, (1, 0)), (1, 1, (1, 0, -1))):  # fmt: skip
        with pytest.raises(UserError):
            restoration_loss(*pair, alpha, beta, loss_weights)
    with pytest.raises(UserError, match="did you mean balanced"):
        restoration_loss(*pair, weighting="balance")
