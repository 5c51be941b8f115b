"""Frozen stages stay as they are, and a step from their cached maps is the one from the same views."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.command import UserError
from pretrain.config import Config
from pretrain.encoder import LEVELS, make_encoder
from pretrain.frozen_stages import CachedMaps
from pretrain.simclr import SimCLR, make_optimizer, make_views, train_mode
from pretrain.training.fabric import make_fabric

COUNT = 40  # images, in two parts of 32 at most
CONFIG = Config(size_px=32, batch=4, views="fast", freeze_stages=2, cached_views=2)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (COUNT, 48, 48, 3), np.uint8))


def pairs_of(number: int, places: np.ndarray) -> Tensor:
    return make_views(CONFIG, number, places, PIXELS[places], None)[0]


def simclr(architecture: str, stages: int, freeze_batch_norm: bool = False) -> SimCLR:
    encoder = make_encoder(architecture, seed=1, input_size_px=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SimCLR(encoder, 0.3, 1.0, 0.2, stages).to(memory_format=torch.channels_last)
    train_mode(module, freeze_batch_norm)
    return module


@pytest.mark.parametrize(
    ("architecture", "stages"),
    [("resnet18", 1), ("efficientnet_lite0", 2), ("timm/test_resnet", 3), ("timm/test_vit", 2)],
)
def test_a_step_changes_what_is_not_frozen_and_nothing_else(architecture, stages):
    """Statistics too, though those of the rest are trained."""
    module, views = simclr(architecture, stages), pairs_of(0, np.arange(4))
    optimizer = make_optimizer("adamw", module, 0.01, 0.1)

    def maps() -> dict[str, Tensor]:
        modes = [(layer, layer.training) for layer in module.modules()]
        with torch.no_grad():
            found = module.encoder.eval()(views, LEVELS)
        for layer, is_training in modes:
            layer.training = is_training
        return found

    before = maps()
    module(views, None, 0, 0, range(4)).loss.backward()
    optimizer.step()
    for number, (level, after) in enumerate(maps().items()):
        assert torch.equal(after, before[level]) == (number < stages), level
    trained = [name for name, weights in module.named_parameters() if weights.requires_grad]
    assert all(dict(module.named_parameters())[name].grad is not None for name in trained)  # DDP waits for each


def test_something_has_to_be_left_to_learn():
    with pytest.raises(UserError, match="nothing of timm/test_resnet is left to learn"):
        simclr("timm/test_resnet", 4)


@pytest.mark.parametrize(("architecture", "stages"), [("efficientnet_lite0", 2), ("resnet18", 1), ("resnet18", 3)])
def test_a_step_from_cached_maps_is_that_from_the_same_views(architecture, stages, tmp_path):
    """Loss and gradients, of images that lie in different parts of the file, in a later epoch. In float64: statistics
    of eight values amplify the rounding of float32."""
    fabric, module = make_fabric("cpu", "64-true"), simclr(architecture, stages).double()
    places = np.array([3, 39, 17, 0])
    config = replace(CONFIG, freeze_stages=stages, out=tmp_path)

    def step(views: Tensor, after: str | None) -> list[Tensor]:
        module.zero_grad()
        losses = module(views, None, 0, 5, range(4), after)
        losses.loss.backward()
        return [losses.loss.detach(), *(each.grad for each in module.parameters() if each.requires_grad)]

    expected = step(pairs_of(1, places), None)
    with CachedMaps(module.encoder, config, COUNT, pairs_of, fabric) as cached:
        maps = cached(3, places)  # of two pairs the second
        assert maps.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(maps, cached(1, places)) and not torch.equal(maps, cached(2, places))
        assert len(list(tmp_path.rglob("maps"))) == 1
        torch.testing.assert_close(step(maps, cached.level), expected, rtol=1e-6, atol=1e-9)
    assert not list(tmp_path.iterdir())


def test_maps_in_bf16_are_kept_as_they_are(tmp_path):
    fabric, module = make_fabric("cpu", "bf16-mixed"), simclr("resnet18", 2)
    with CachedMaps(module.encoder, replace(CONFIG, out=tmp_path), 8, pairs_of, fabric) as cached:
        with fabric.autocast(), torch.no_grad():
            expected = module.encoder(pairs_of(1, np.arange(8)), ("level2",))["level2"]
        maps = cached(1, np.arange(8))
        assert maps.dtype == torch.bfloat16 and torch.equal(maps, expected)


def test_maps_for_which_the_disk_has_no_room_are_refused(tmp_path):
    config = replace(CONFIG, cached_views=10**8, out=tmp_path)
    cached = CachedMaps(simclr("resnet18", 2).encoder, config, COUNT, pairs_of, make_fabric("cpu", "32-true"))
    with pytest.raises(UserError, match=r"the maps of 100000000 pairs .* fewer --cached-views"), cached:
        pass
    assert not list(tmp_path.iterdir())
