"""What training achieves, in figures: closed forms, invariances, and that measuring changes nothing."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain import monitor
from pretrain.config import Config
from pretrain.data.cache import Entry
from pretrain.data.dataset import ImageSet
from pretrain.data.images import Record
from pretrain.encoder import make_encoder
from pretrain.monitor import Figures, Monitor, alignment, rank_me, resampled_auroc, spread, uniformity
from pretrain.simclr import SimCLR, train_mode

CPU = torch.device("cpu")
CONFIG = Config(size_px=32, jitter=0.1, blur=0.3, gray=0.0, crop_area_min=0.3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alignment_of_views_that_are_alike_at_right_angles_and_opposite():
    first = torch.eye(6)
    assert alignment(first, first * 3) == pytest.approx(0, abs=1e-6)
    assert alignment(first, first.roll(1, 0)) == pytest.approx(2, abs=1e-6)
    assert alignment(first, -first) == pytest.approx(4, abs=1e-6)
    half = torch.cat([first[:3], first[3:].roll(1, 0)])
    assert alignment(first, half) == pytest.approx(1, abs=1e-6)
    assert alignment(random(4000, 64), random(4000, 64, seed=1)) == pytest.approx(2, abs=0.02)


def test_uniformity_of_one_point_two_poles_and_right_angles():
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[0.0, 1.0], [0.0, -2.0]])) == pytest.approx(-8, abs=1e-5)
    assert uniformity(torch.eye(7)) == pytest.approx(-4, abs=1e-5)
    # Of the six pairs of two twins each, two are at distance 0 and four at right angles.
    twins = torch.eye(2).repeat(2, 1)
    assert uniformity(twins) == pytest.approx(math.log((2 + 4 * math.exp(-4)) / 6), abs=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_rank_me_of_equal_directions_is_their_number(rank):
    left, right = (torch.linalg.qr(random(n, rank, seed=n)).Q for n in (24, 16))
    assert rank_me(3 * left @ right.T) == pytest.approx(rank, rel=1e-3)


def test_rank_me_of_unequal_directions_is_the_exponent_of_their_entropy():
    shares = torch.tensor([0.5, 0.25, 0.25])
    expected = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
    assert rank_me(torch.diag(shares * 8)) == pytest.approx(expected, rel=1e-4)
    assert rank_me(torch.full((3, 3), math.nan)).isnan()


def test_spread_is_one_for_random_directions_and_none_for_one():
    everywhere = random(2000, 64)
    assert spread(everywhere) == pytest.approx(1, abs=0.02)
    one_way = torch.ones(50, 64)
    assert spread(one_way) == pytest.approx(0, abs=1e-5)
    nearly = one_way + 0.01 * random(50, 64)
    for vectors, is_collapsed in ((one_way, True), (nearly, True), (everywhere, False)):
        assert Figures(0.5, 0, 0, 1, float(spread(vectors))).is_collapsed == is_collapsed


@pytest.mark.parametrize("figure", [uniformity, rank_me, spread])
def test_order_scale_and_turns_do_not_matter(figure):
    vectors = random(40, 12) + 0.3
    expected = figure(vectors)
    assert figure(vectors[torch.randperm(40)]) == pytest.approx(expected.item(), rel=1e-4)
    assert figure(vectors * 100) == pytest.approx(expected.item(), rel=1e-4)
    if figure is not spread:  # the mean over axes of a deviation is no invariant of turns
        turn = torch.linalg.qr(random(12, 12, seed=1)).Q
        assert figure(vectors @ turn) == pytest.approx(expected.item(), rel=1e-4)
    assert figure(random(40, 12) + 3) != pytest.approx(expected.item(), rel=0.05)


def test_alignment_does_not_depend_on_order_scale_and_turns():
    first, second = random(40, 12), random(40, 12) + 0.5 * random(40, 12, seed=1)
    order, turn = torch.randperm(40), torch.linalg.qr(random(12, 12, seed=2)).Q
    expected = alignment(first, second).item()
    assert alignment(first[order], second[order]) == pytest.approx(expected, rel=1e-4)
    assert alignment(first @ turn, 5 * second @ turn) == pytest.approx(expected, rel=1e-4)
    assert alignment(first, second[order]) > 2 * expected


def images(counts: dict[str, int], seed: int = 0, size_px: int = 48) -> ImageSet:
    """A disc on a slope of another color for each category, every image of it a little different."""
    generator, row = np.random.default_rng(seed), torch.linspace(-1, 1, size_px).numpy()
    pixels, records = [], []
    for number, (category, count) in enumerate(counts.items()):
        base = np.random.default_rng(100 + number).uniform(60, 200, (2, 3))
        for _ in range(count):
            radius = 0.5 + 0.02 * generator.normal()
            inside = (row[:, None] ** 2 + row[None] ** 2 < radius**2)[..., None]
            image = np.where(inside, base[0], base[1] + 20 * row[:, None, None]) + generator.normal(0, 1, 3)
            pixels.append(image.clip(0, 255).astype(np.uint8))
            records.append(Record(Path(f"{category}{len(records)}.png"), category, "train", "good"))
    entries = tuple(Entry(i, size_px, size_px, bytes([i]), bytes([i])) for i in range(len(records)))
    return ImageSet(Path("data"), size_px, tuple(records), entries, np.stack(pixels))


REFERENCES, UNSEEN = {"a": 6, "b": 6, "c": 6}, {"a": 1, "b": 4}


class Seeing(nn.Module):
    """What Monitor uses of an encoder: levels that are the image itself, made smaller."""

    channels: ClassVar = {"level1": 3, "level2": 3, "level3": 3}

    def forward(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        assert tuple(levels) == ("level1", "level2", "level3")
        return {level: F.avg_pool2d(images, size) for level, size in zip(levels, (1, 2, 4), strict=True)}

    def pooled(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 8).flatten(1)


class Blind(Seeing):
    """The same whatever it is shown."""

    def forward(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        return super().forward(torch.full_like(images, 0.5), levels)

    def pooled(self, images: Tensor) -> Tensor:
        return super().pooled(torch.full_like(images, 0.5))


@pytest.fixture(scope="module")
def fixed_monitor() -> Monitor:
    return Monitor(images(REFERENCES), images(UNSEEN, seed=1), CONFIG, CPU)


def test_an_encoder_that_sees_tells_synthetic_defects_apart_and_a_blind_one_does_not(fixed_monitor):
    seeing, blind = (fixed_monitor.measure(encoder, nn.Identity()) for encoder in (Seeing(), Blind()))
    assert 0.7 < seeing.synthetic_auroc <= 1
    assert blind.synthetic_auroc == pytest.approx(0.5)
    assert blind.is_collapsed and blind.spread == pytest.approx(0, abs=1e-5)
    assert (blind.alignment, blind.uniformity) == pytest.approx((0, 0), abs=1e-5)
    assert blind.rank_me == pytest.approx(1, rel=1e-3)
    assert 0 < seeing.alignment < 1 and seeing.rank_me > 1.1 and all(map(math.isfinite, seeing))


def test_the_interval_is_of_the_figure_that_was_measured_last(fixed_monitor):
    figures = fixed_monitor.measure(Seeing(), nn.Identity())
    low, high = fixed_monitor.interval().values()
    assert 0 <= low < figures.synthetic_auroc <= high <= 1
    count = sum(UNSEEN.values())
    assert fixed_monitor.counts == {"synthetic_normals": count, "synthetic_anomalies": 2 * count}
    fixed_monitor.measure(Blind(), nn.Identity())
    assert [*fixed_monitor.interval().values()] == pytest.approx([0.5, 0.5])


def test_draws_of_images_spread_around_the_figure_as_far_as_theory_has_it():
    """Of independent scores: the standard error of Hanley and McNeil's, of an AUROC of 0.76."""
    random = np.random.default_rng(1)
    clean, synthetic = random.normal(size=200), random.normal(1, 1, (1, 200))
    labels = np.repeat([0, 1], 200)
    auroc = roc_auc_score(labels, np.concatenate([clean, synthetic[0]]))
    drawn = resampled_auroc(clean, synthetic)
    assert drawn.mean() == pytest.approx(auroc, abs=0.005)
    first, second = auroc / (2 - auroc) - auroc**2, 2 * auroc**2 / (1 + auroc) - auroc**2
    expected = ((auroc * (1 - auroc) + 199 * (first + second)) / 200**2) ** 0.5
    assert drawn.std() == pytest.approx(expected, rel=0.15)


def test_the_same_figures_every_time(fixed_monitor):
    first = fixed_monitor.measure(Seeing(), nn.Identity())
    assert fixed_monitor.measure(Seeing(), nn.Identity()) == first
    torch.manual_seed(5)
    again = Monitor(images(REFERENCES), images(UNSEEN, seed=1), CONFIG, CPU)
    assert again.measure(Seeing(), nn.Identity()) == first


@pytest.mark.parametrize("counts", [{"a": 2}, {"c": 1, "a": 1}, {"a": 3, "b": 3, "c": 3}])
def test_few_unseen_images_and_categories(counts):
    figures = Monitor(images(REFERENCES), images(counts, seed=1), CONFIG, CPU).measure(Seeing(), nn.Identity())
    assert 0 <= figures.synthetic_auroc <= 1 and all(map(math.isfinite, figures))


@pytest.mark.parametrize("freeze", [False, True])
def test_measuring_leaves_everything_as_it_was(freeze, fixed_monitor):
    """Also the frozen batch normalization in the middle of a training encoder."""
    module = SimCLR(make_encoder("resnet18", input_size_px=32), 0.3, 1.0, 0.2)
    train_mode(module, freeze)
    module.projection[0].eval()
    modes = [part.training for part in module.modules()]
    frozen = [not part.training for part in module.modules() if isinstance(part, _BatchNorm)]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generator = torch.get_rng_state()
    fixed_monitor.measure(module.encoder, module.projection)
    assert [part.training for part in module.modules()] == modes
    assert all(frozen) == any(frozen) == freeze
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.is_grad_enabled()


def test_batch_normalization_and_dropout_are_off_while_looking(fixed_monitor):
    class Layered(Seeing):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))

        def forward(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
            return super().forward(self.body(images), levels)

    encoder = Layered().train()
    figures = fixed_monitor.measure(encoder, nn.Identity())
    assert fixed_monitor.measure(encoder, nn.Identity()) == figures
    assert figures.synthetic_auroc == pytest.approx(
        fixed_monitor.measure(Seeing(), nn.Identity()).synthetic_auroc, abs=0.02
    )
    assert encoder.body[0].num_batches_tracked == 0


def test_double_precision_is_measured_too(fixed_monitor):
    module = SimCLR(make_encoder("resnet18", input_size_px=32), 0.3, 1.0, 0.2)
    single = fixed_monitor.measure(module.encoder, module.projection)
    double = fixed_monitor.measure(module.encoder.double(), module.projection.double())
    assert double == pytest.approx(single, rel=1e-3, abs=1e-4)


def test_a_damaged_encoder_has_no_figure(fixed_monitor):
    encoder = make_encoder("resnet18", input_size_px=32)
    next(encoder.parameters()).data.fill_(math.nan)
    assert math.isnan(fixed_monitor.measure(encoder, nn.Flatten()).synthetic_auroc)


def test_distances_are_taken_in_parts(monkeypatch):
    """All at once they are 11 GiB for one category at 224 px."""
    patches, known = F.normalize(random(5, 7, 4), dim=2), F.normalize(random(33, 4, seed=1), dim=1)
    expected = (patches[:, :, None] - known).norm(dim=3).amin(2).amax(1)
    largest, made = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda *both: largest.append(made(*both).numel()) or made(*both))
    for at_once in (1, 100, 10**6):
        monkeypatch.setattr(monitor, "DISTANCES_AT_ONCE", at_once)
        largest.clear()
        torch.testing.assert_close(monitor._farthest(patches, known), expected, rtol=1e-5, atol=1e-5)
        assert max(largest) <= max(at_once, 33) and sum(largest) == 5 * 7 * 33
