"""SADNet: its published size, its deformable convolutions, any image size."""

import pytest
import torch
from torch.nn import functional as F

from baselines.restoration.sadnet_network import GROUPS, TAPS, AdaptiveBlock, OffsetBlock, SadNet


@pytest.fixture(scope="module")
def small() -> SadNet:
    torch.manual_seed(0)
    return SadNet(width=8)


def test_it_has_the_published_number_of_parameters():
    assert sum(weights.numel() for weights in SadNet().parameters()) == 4_234_723


def test_zero_offsets_are_a_plain_modulated_convolution():
    """As it begins, each tap counts half: sigmoid(0)."""
    torch.manual_seed(0)
    block, features, offsets = AdaptiveBlock(16), torch.randn(2, 16, 9, 11), torch.randn(2, 32, 9, 11)
    plain = F.conv2d(features, 0.5 * block.deformed.weight, block.deformed.bias, padding=1)
    expected = features + block.plain(F.leaky_relu(plain, 0.2))
    torch.testing.assert_close(block(features, offsets), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_the_taps_modulate_each_group_by_itself():
    torch.manual_seed(0)
    block, features = AdaptiveBlock(16), torch.randn(1, 16, 8, 8)
    block.predict.bias.data[2 * GROUPS * TAPS :] = torch.linspace(-3, 3, GROUPS * TAPS)
    masks = torch.linspace(-3, 3, GROUPS * TAPS).sigmoid().view(1, GROUPS, 1, TAPS)
    columns = F.unfold(features, 3, padding=1).view(1, GROUPS, 16 // GROUPS, TAPS, 64) * masks[..., None]
    gathered = block.deformed.weight.flatten(1) @ columns.reshape(1, 16 * TAPS, 64) + block.deformed.bias[:, None]
    expected = features + block.plain(F.leaky_relu(gathered.view(1, 16, 8, 8), 0.2))
    torch.testing.assert_close(block(features, torch.zeros(1, 32, 8, 8)), expected, rtol=1e-4, atol=1e-5)


def test_an_offset_of_a_pixel_looks_a_pixel_further():
    torch.manual_seed(0)
    block, features = AdaptiveBlock(16), torch.randn(1, 16, 12, 12)
    block.predict.bias.data[1 : 2 * GROUPS * TAPS : 2] = 1.0  # every x
    moved = block(features, torch.zeros(1, 32, 12, 12)) - features
    shifted = F.pad(features[..., 1:], (0, 1))
    block.predict.bias.data.zero_()
    still = block(shifted, torch.zeros(1, 32, 12, 12)) - shifted
    torch.testing.assert_close(moved[..., 3:-3, 3:-3], still[..., 3:-3, 3:-3], rtol=1e-4, atol=1e-4)


def test_an_offset_that_is_no_number_gives_none_and_kills_nobody():
    block = AdaptiveBlock(16)
    block.predict.bias.data[0] = torch.nan
    assert block(torch.randn(2, 16, 32, 32), torch.zeros(2, 32, 32, 32)).isnan().all()


def test_gradients_reach_the_offsets_and_move_them(small):
    network = SadNet(width=8)
    network.load_state_dict(small.state_dict())
    images, clean = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        F.mse_loss(network(images), clean).backward()
        for block in network.blocks:  # places, and weights of the taps
            gradient = block.predict.weight.grad
            assert gradient[: 2 * GROUPS * TAPS].abs().sum() > 0 and gradient[2 * GROUPS * TAPS :].abs().sum() > 0
        if step:  # through the prediction, which is zero at first, to what it is made of
            assert all(block.enter.weight.grad.abs().sum() > 0 for block in network.offsets)
        optimizer.step()
    with network.recorded_offsets() as offsets:
        network(images)
    assert len(offsets) == 4 and all(size > 0 for size in offsets)


def test_offsets_begin_at_zero_and_are_recorded_only_inside(small):
    with small.recorded_offsets() as offsets:
        small(torch.rand(1, 3, 16, 16))
    assert [size.item() for size in offsets] == [0.0] * 4
    small(torch.rand(1, 3, 16, 16))
    assert len(offsets) == 4


def test_coarser_offsets_come_in_enlarged_and_doubled():
    torch.manual_seed(0)
    block, features, coarser = OffsetBlock(8, True), torch.randn(1, 8, 6, 6), torch.randn(1, 32, 3, 3)
    larger = 2 * F.interpolate(coarser, (6, 6), mode="bilinear", align_corners=False)
    joined = torch.cat((F.leaky_relu(block.enter(features), 0.2), larger), dim=1)
    expected = F.leaky_relu(block.leave(F.leaky_relu(block.merge(joined), 0.2)), 0.2)
    torch.testing.assert_close(block(features, coarser), expected)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 50), (33, 17), (64, 72)])
def test_any_size_goes_in_and_comes_out(small, size):
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        restored = small(images)
    assert restored.shape == images.shape and restored.isfinite().all()


def test_padding_is_cut_back_to_where_it_was(small):
    """What lies beyond the border is the border's own pixel: the same as padding beforehand."""
    images = torch.rand(1, 3, 19, 21)
    with torch.inference_mode():
        whole = small(F.pad(images, (0, 3, 0, 5), mode="replicate"))
        torch.testing.assert_close(small(images), whole[..., :19, :21])
