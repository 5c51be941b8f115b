"""SADNet: a U-Net whose decoder learns, for every position, where in the feature map to look.

Chang et al. 2020, https://arxiv.org/abs/2001.10291: on the way up, deformable convolutions gather from positions that
look like the one restored, and the finer level's offsets refine the coarser one's. The network predicts the difference
to the degraded image, so that untrained it changes little.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, OFFSET_CHANNELS, GROUPS = 32, 32, 8
DILATIONS = (1, 2, 3, 4)
# Three halvings lie between the first level and the last.
STRIDE = 8
SLOPE = 0.2
TAPS = 9  # of a 3 x 3 convolution
OFFSETS = 2 * GROUPS * TAPS


def leaky(features: Tensor) -> Tensor:
    return F.leaky_relu(features, SLOPE)


def conv3(entering: int, leaving: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, 1, dilation, dilation)


class ResidualBlock(nn.Module):
    """(b, entering, h, w) -> (b, leaving, h, w)."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.fit = nn.Conv2d(entering, leaving, 1) if entering != leaving else nn.Identity()
        self.first, self.second = conv3(leaving, leaving), conv3(leaving, leaving)

    def forward(self, features: Tensor) -> Tensor:
        features = self.fit(features)
        return features + self.second(leaky(self.first(features)))


class Context(nn.Module):
    """The paper's context block: dilated convolutions at four distances. (b, channels, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.reduce = nn.Conv2d(channels, narrow, 1)
        self.branches = nn.ModuleList(conv3(narrow, narrow, dilation=dilation) for dilation in DILATIONS)
        self.join = nn.Conv2d(narrow * len(DILATIONS), channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        seen = torch.cat([leaky(branch(reduced)) for branch in self.branches], dim=1)
        return features + self.join(seen)


class OffsetBlock(nn.Module):
    """Features (b, c, h, w), and what the coarser level's block gave, (b, 32, h / 2, w / 2) -> (b, 32, h, w)."""

    def __init__(self, channels: int, has_coarser: bool) -> None:
        super().__init__()
        self.enter = conv3(channels, OFFSET_CHANNELS)
        self.merge = conv3(2 * OFFSET_CHANNELS, OFFSET_CHANNELS) if has_coarser else None
        self.leave = conv3(OFFSET_CHANNELS, OFFSET_CHANNELS)

    def forward(self, features: Tensor, coarser: Tensor | None = None) -> Tensor:
        offsets = leaky(self.enter(features))
        if self.merge is not None:
            # A pixel of the coarser level is two of this one's.
            larger = 2 * F.interpolate(coarser, features.shape[-2:], mode="bilinear", align_corners=False)
            offsets = leaky(self.merge(torch.cat((offsets, larger), dim=1)))
        return leaky(self.leave(offsets))


class AdaptiveBlock(nn.Module):
    """The paper's residual spatial-adaptive block: a modulated deformable convolution, a plain one, and a skip.

    As it begins, all offsets are zero, and each tap counts half: sigmoid(0).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predict = conv3(OFFSET_CHANNELS, GROUPS * 3 * TAPS)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)
        self.deformed, self.plain = conv3(channels, channels), conv3(channels, channels)

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d  # 1.5 s that whoever uses no SADNet does without

        predicted = self.predict(offsets)  # (b, 8 * 27, h, w)
        shifts, weights = predicted.split((OFFSETS, GROUPS * TAPS), dim=1)
        if shifts.isnan().any():  # there deform_conv2d reads anywhere in memory, and the process dies
            return features * math.nan
        layer = self.deformed
        gathered = deform_conv2d(features, shifts, layer.weight, layer.bias, padding=1, mask=weights.sigmoid())
        return features + self.plain(leaky(gathered))


class SadNet(nn.Module):
    """float32 RGB (b, 3, h, w) in [0, 1], any size -> the same shape, not clamped. 4,234,723 parameters at width 32."""

    # Peak memory of inference, measured on a CPU: 3700 to 4050 bytes.
    bytes_per_pixel = 4500
    stride = STRIDE

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 8 * width]
        self.encoders = nn.ModuleList(
            ResidualBlock(before, now) for before, now in zip((3, *channels[1:]), channels, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(now, after, 2, 2) for now, after in pairwise(channels))
        self.context = Context(channels[-1])
        finest_last = channels[::-1]
        self.offsets = nn.ModuleList(OffsetBlock(now, number > 0) for number, now in enumerate(finest_last))
        self.blocks = nn.ModuleList(AdaptiveBlock(now) for now in finest_last)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(now, after, 2, 2) for now, after in pairwise(finest_last))
        self.joins = nn.ModuleList(nn.Conv2d(2 * now, now, 1) for now in finest_last[1:])
        self.output = conv3(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        features, skips = self.encoders[0](padded), []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(features)
            features = encoder(leaky(down(features)))
        features = self.context(features)  # (b, 8 * width, h / 8, w / 8)
        offsets = self.offsets[0](features)
        features = self.blocks[0](features, offsets)
        for level, up in enumerate(self.ups, start=1):
            joined = torch.cat((up(features), skips[-level]), dim=1)
            features = self.joins[level - 1](joined)
            offsets = self.offsets[level](features, offsets)
            features = self.blocks[level](features, offsets)
        return (padded + self.output(features))[..., :height, :width]

    @contextmanager
    def recorded_offsets(self) -> Iterator[list[Tensor]]:
        """Each forward pass inside adds the mean size of every level's offsets, in its pixels, coarsest first."""
        sizes: list[Tensor] = []

        def record(layer: nn.Module, arguments: tuple, predicted: Tensor) -> None:
            sizes.append(predicted[:, :OFFSETS].detach().abs().mean())

        hooks = [block.predict.register_forward_hook(record) for block in self.blocks]
        try:
            yield sizes
        finally:
            for hook in hooks:
                hook.remove()
