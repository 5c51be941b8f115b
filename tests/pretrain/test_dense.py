"""Contrast between places against a naive reference, and which places take part."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain import dense
from pretrain.anomalies import add_anomaly
from pretrain.dense import POSITIONS_ANYWHERE, POSITIONS_IN_MASK, DenseContrast, Positions
from pretrain.loss import nt_xent

CPU = torch.device("cpu")
SIDES = {"level2": (4, 4), "level3": (2, 3)}
CHANNELS = {"level2": 5, "level3": 7}
IMAGES = 4


def features(parts: int, seed: int = 0, dtype=torch.float64) -> dict[str, Tensor]:
    """Maps of two views of four images, or of three parts with the synthetic anomalies; all want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return {
        level: torch.randn(parts * IMAGES, CHANNELS[level], *side, generator=generator, dtype=dtype, requires_grad=True)
        for level, side in SIDES.items()
    }


def contrast(dtype=torch.float64) -> DenseContrast:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DenseContrast(CHANNELS, width=6, dimensions=4).to(dtype)


def synthetic_masks(size_px: int = 32, count: int = IMAGES) -> Tensor:
    images = torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    return add_anomaly(images, None, 0, 0, range(count))[1]


def naive_cover(mask: Tensor, height: int, width: int) -> Tensor:
    """Share of each cell of a map that a mask (h, w) covers; every pixel that a cell touches is of it."""
    rows, columns = mask.shape
    cover = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            top, bottom = i * rows // height, math.ceil((i + 1) * rows / height)
            left, right = j * columns // width, math.ceil((j + 1) * columns / width)
            cover[i, j] = mask[top:bottom, left:right].float().mean()
    return cover


def naive_loss(module: DenseContrast, maps: dict[str, Tensor], masks: Tensor | None, drawn: Positions) -> Tensor:
    """Level by level, image by image, place by place."""
    losses = []
    for level, projection in module.projections.items():
        height, width = SIDES[level]
        projected = projection(maps[level])
        rows = {0: [], 1: [], 2: []}
        for image in range(IMAGES):
            cells = [int(chance * height * width) for chance in drawn.chance[image]]
            spoiled = [] if masks is None else drawn.in_masks(masks, (height, width))[image].tolist()
            for part, wanted in ((0, cells + spoiled), (1, cells + spoiled), (2, spoiled)):
                for cell in wanted:
                    at = projected[part * IMAGES + image, :, cell // width, cell % width]
                    rows[part].append(at)
        extra = torch.stack(rows[2]) if masks is not None else None
        losses.append(nt_xent(torch.stack(rows[0]), torch.stack(rows[1]), 0.3, extra))
    return torch.stack([loss.loss for loss in losses]).mean(), torch.stack([loss.accuracy for loss in losses]).mean()


@pytest.mark.parametrize("is_synthetic", [False, True])
@pytest.mark.parametrize("is_training", [False, True])
def test_equals_a_loop_over_levels_and_positions(is_synthetic, is_training):
    module, drawn = contrast().train(is_training), Positions(0, 3, range(IMAGES), CPU)
    masks = synthetic_masks() if is_synthetic else None
    maps = features(3 if is_synthetic else 2)
    found = module(maps, masks, drawn, 0.3)
    expected, accuracy = naive_loss(module, maps, masks, drawn)
    assert found.loss.dtype == torch.float64
    torch.testing.assert_close(found.loss, expected, rtol=1e-12, atol=0)
    assert found.accuracy.item() == pytest.approx(accuracy.item(), abs=1e-12)
    inputs = [*maps.values(), *module.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(found.loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_reach_every_part():
    module, maps = contrast(torch.float32), features(3, dtype=torch.float32)
    module(maps, synthetic_masks(), Positions(0, 0, range(IMAGES), CPU), 0.2).loss.backward()
    for gradient in (level.grad for level in maps.values()):
        assert all(part.abs().max() > 1e-6 for part in gradient.chunk(3))
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_half_precision_is_contrasted_in_full():
    maps = {level: values.detach().bfloat16() for level, values in features(2).items()}
    module = contrast(torch.float32).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = module(maps, None, Positions(0, 0, range(IMAGES), CPU), 0.2)
    assert found.loss.dtype == torch.float32 and found.loss.isfinite()


def test_anomalous_positions_like_clean_ones_cost_more():
    """The anomalous part as the clean one itself, as something unrelated, and not there at all."""
    module, drawn, masks = DenseContrast({"level2": 32}), Positions(0, 0, range(IMAGES), CPU), synthetic_masks()
    module.projections["level2"] = torch.nn.Identity()
    generator = torch.Generator().manual_seed(0)
    clean, unrelated = (torch.randn(IMAGES, 32, 8, 8, generator=generator) for _ in range(2))

    def loss(synthetic: Tensor) -> Tensor:
        return module({"level2": torch.cat([clean, clean, synthetic])}, masks, drawn, 0.2).loss

    alike, other = loss(clean), loss(unrelated)
    without = module({"level2": torch.cat([clean, clean])}, None, drawn, 0.2).loss
    assert alike > other + 0.1 and other > without + 0.1


def test_the_order_of_levels_and_images_does_not_matter():
    module, maps, masks = contrast().eval(), features(3), synthetic_masks()
    drawn = Positions(0, 0, range(IMAGES), CPU)
    expected = module(maps, masks, drawn, 0.2)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {level: torch.cat([part[order] for part in values.chunk(3)]) for level, values in maps.items()}
    found = module(shuffled, masks[order], Positions(0, 0, order.numpy(), CPU), 0.2)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert abs(module(shuffled, masks, drawn, 0.2).loss - expected.loss) > 1e-6


def test_positions_depend_on_seed_step_and_position_alone():
    whole = Positions(3, 5, range(16), CPU).chance
    assert torch.equal(Positions(3, 5, np.array([9, 2]), CPU).chance, whole[[9, 2]])
    assert whole.shape == (16, POSITIONS_ANYWHERE) and len(whole.unique()) == whole.numel()
    for other in (Positions(4, 5, range(16), CPU), Positions(3, 6, range(16), CPU)):
        assert not (other.chance == whole).any()
    before = torch.get_rng_state()
    Positions(0, 0, range(4), CPU).anywhere(9)
    assert torch.equal(torch.get_rng_state(), before)


def test_positions_are_spread_over_the_map_and_never_outside(monkeypatch):
    cells = Positions(0, 0, range(2000), CPU).anywhere(16)
    counts = torch.bincount(cells.flatten(), minlength=16)
    assert len(counts) == 16 and (counts - 1000).abs().max() < 150  # 5 sigma of a fair draw
    largest = np.float32(1) - np.float32(2**-24)
    monkeypatch.setattr(dense, "uniforms", lambda positions, columns, *key: np.full((1, columns), largest))
    for count in (*range(1, 300), 784, 1023, 1024, 3136, 2**18 + 1):
        assert (Positions(0, 0, [0], CPU).anywhere(count) == count - 1).all()


@pytest.mark.parametrize("shape", [(16, 16), (8, 8), (4, 4), (3, 5), (1, 2), (1, 1), (40, 40)])
def test_anomalous_positions_are_under_the_mask(shape):
    masks = synthetic_masks(count=12)
    picked = Positions(0, 0, range(12), CPU).in_masks(masks, shape)
    assert picked.shape == (12, min(POSITIONS_IN_MASK, shape[0] * shape[1]))
    for mask, cells in zip(masks, picked, strict=True):
        cover = naive_cover(mask, *shape).flatten()
        assert cover[cells[0]] == pytest.approx(cover.max().item(), abs=1e-6)
        assert (cover[cells] > 0).all() and (cover[cells] >= 0.5 * cover.max() - 1e-6).all()
        # No cell that is left out is covered better than one that is in, nor would it have done where one is repeated.
        left_out = torch.ones_like(cover).index_fill_(0, cells, 0).bool()
        repeated = len(cells.unique()) < len(cells)
        bound = 0.5 * cover.max() if repeated else cover[cells].min()
        assert not left_out.any() or cover[left_out].max() <= bound + 1e-6


def test_one_covered_cell_is_repeated_and_four_are_all_taken():
    drawn, masks = Positions(0, 0, range(2), CPU), torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 8:12, 20:24] = True  # cell (2, 5) of 8 x 8
    masks[1, 16:24, 0:8] = True
    picked = drawn.in_masks(masks, (8, 8))
    assert picked[0].tolist() == [2 * 8 + 5] * 4
    assert sorted(picked[1].tolist()) == [4 * 8, 4 * 8 + 1, 5 * 8, 5 * 8 + 1]


def test_the_same_position_is_compared():
    """Maps that name their positions: unit vectors of the position, projected by nothing, are all told apart."""
    module, drawn = DenseContrast({"level2": 16}, width=16, dimensions=16), Positions(0, 0, range(1), CPU)
    module.projections["level2"] = torch.nn.Identity()
    names = F.one_hot(torch.arange(16)).float().T.reshape(1, 16, 4, 4)
    # Of one image; a cell drawn twice is its own negative, so the positions are set.
    drawn.chance = (torch.arange(8) * 2 + 0.5)[None] / 16
    found = module({"level2": torch.cat([names, names])}, None, drawn, 0.5)
    assert found.accuracy == 1
    assert found.loss.item() == pytest.approx(math.log(1 + 14 * math.exp(-2)), abs=1e-6)
