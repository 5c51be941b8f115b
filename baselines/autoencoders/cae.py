"""The family of convolutional auto-encoders: mvtec and mvtec2 (Bergmann et al. 2018, https://arxiv.org/abs/1807.02011,
and a variant of it), three more that their users know, baselineCAE, inceptionCAE and skipCAE, one on a backbone that
was trained elsewhere, and an inspection line's.

Layers are those of 256 px. At other sizes the bottleneck, and what follows it, are as much smaller or larger. Which
sizes an architecture can take, its line in networks.py says.
"""

import math

from torch import Tensor, cat, nn

from pretrain.encoder import DEFAULT_ARCHITECTURE, LEVELS, Encoder

LEAK = 0.2
# Width, side of the window, stride.
MVTEC_ENCODER = ((32, 4, 2), (32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1),
                 (32, 3, 1))  # fmt: skip
MVTEC_DECODER = ((64, 3, 1), (128, 4, 1), (64, 3, 2), (64, 4, 1), (32, 3, 2), (32, 4, 1), (32, 4, 2), (32, 4, 2))
MVTEC_SHRINKS = 32  # by its five strides of 2


def convolution(before: int, after: int, window: int, stride: int) -> nn.Module:
    """One whose output has the size of its input, divided by `stride`."""
    if stride == 1 and window % 2 == 0:  # one more at the right and below
        low, high = (window - 1) // 2, window // 2
        return nn.Sequential(nn.ZeroPad2d((low, high, low, high)), nn.Conv2d(before, after, window))
    return nn.Conv2d(before, after, window, stride, (window - 1) // 2)


def transposed(before: int, after: int, window: int, stride: int) -> nn.Module:
    """One whose output is `stride` times as large. Without a stride that is a convolution with its window mirrored."""
    if stride == 1:
        return convolution(before, after, window, 1)
    missing = max(0, stride - window)  # what no window reaches, at the end of each side
    padding = 0 if missing else (window - stride + 1) // 2
    return nn.ConvTranspose2d(before, after, window, stride, padding, stride - window + 2 * padding)


def scale_weights(layer: nn.Module) -> None:
    """He et al. 2015, for networks without normalization: torch's own weights shrink the signal at each of twenty
    layers, so that mvtec2 first gives all images the same answer to 1e-9. Measured at 64 px on one real category, its
    SSIM loss after 150 steps of 8 images: 0.191, otherwise 0.213."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class MVTec(nn.Module):
    """That of Bergmann et al.: down to 8x8, then to `latent` numbers, and back by transposed convolutions."""

    def __init__(self, size_px: int, channels: int = 3, latent: int = 100) -> None:
        super().__init__()
        side = size_px // MVTEC_SHRINKS
        self.encoder, before = _mvtec_encoder(channels, lambda: nn.LeakyReLU(LEAK))
        self.bottleneck = nn.Conv2d(before, latent, side)
        layers = [transposed(latent, 32, 3, side), nn.LeakyReLU(LEAK)]
        before = 32
        for after, window, stride in MVTEC_DECODER:
            layers += [transposed(before, after, window, stride), nn.LeakyReLU(LEAK)]
            before = after
        self.decoder = nn.Sequential(*layers, transposed(before, channels, 4, 2), nn.Sigmoid())
        self.apply(scale_weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(images)))


class MVTec2(nn.Module):
    """The same encoder with ReLU; its bottleneck is one number at each of 8x8 positions, and the way back is by
    up-sampling, which leaves no checkerboard."""

    def __init__(self, size_px: int, channels: int = 3) -> None:
        super().__init__()
        self.encoder, before = _mvtec_encoder(channels, nn.ReLU)
        self.bottleneck = convolution(before, 1, size_px // MVTEC_SHRINKS, 1)
        layers = [convolution(1, 32, 3, 1), nn.ReLU()]
        before = 32
        for after, window, stride in MVTEC_DECODER:
            layers += [nn.Upsample(scale_factor=2)] if stride == 2 else []
            layers += [convolution(before, after, window, 1), nn.ReLU()]
            before = after
        self.decoder = nn.Sequential(
            *layers, nn.Upsample(scale_factor=2), convolution(before, channels, 4, 1), nn.Sigmoid()
        )
        self.apply(scale_weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(images)))


def _mvtec_encoder(channels: int, activation: type[nn.Module]) -> tuple[nn.Sequential, int]:
    layers, before = [], channels
    for after, window, stride in MVTEC_ENCODER:
        layers += [convolution(before, after, window, stride), activation()]
        before = after
    return nn.Sequential(*layers), before


class BaselineCAE(nn.Module):
    """Six times convolution, batch normalization, pooling; then `latent` numbers, and the same way back."""

    widths = (32, 32, 64, 64, 128, 128)

    def __init__(self, size_px: int, channels: int = 3, latent: int = 64) -> None:
        super().__init__()
        side = size_px >> len(self.widths)
        before, down = channels, []
        for after in self.widths:
            down += [self._block(before, after), nn.MaxPool2d(2)]
            before = after
        count = before * side * side
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(count, latent), nn.LeakyReLU(LEAK))
        up = [nn.Linear(latent, count), nn.LeakyReLU(LEAK), nn.Unflatten(1, (before, side, side))]
        for after in (*self.widths[-2::-1], self.widths[0]):
            up += [nn.Upsample(scale_factor=2), self._block(before, after)]
            before = after
        self.decoder = nn.Sequential(*up, convolution(before, channels, 3, 1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))

    def _block(self, before: int, after: int) -> nn.Module:
        return nn.Sequential(convolution(before, after, 3, 1), nn.BatchNorm2d(after), nn.LeakyReLU(LEAK))


class InceptionCAE(BaselineCAE):
    """The same with blocks of Inception (https://arxiv.org/abs/1409.4842)."""

    def _block(self, before: int, after: int) -> nn.Module:
        return Inception(before, after)


class Inception(nn.Module):
    """Windows of 1, 3 and 5 pixels and a pooled one side by side, a quarter of the width each: (b, before, h, w) ->
    (b, after, h, w)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(convolution(before, after // 4, window, 1) for window in (1, 3, 5))
        self.branches.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(before, after // 4, 1, 1)))
        self.after = nn.Sequential(nn.BatchNorm2d(after), nn.LeakyReLU(LEAK))

    def forward(self, maps: Tensor) -> Tensor:
        return self.after(cat([branch(maps) for branch in self.branches], dim=1))


class SkipCAE(nn.Module):
    """Strided convolutions down to a single position, eight at 256 px, then `latent` numbers, and the same way back.
    What the second and the fourth one give is added on the way back: there the image need not pass the bottleneck."""

    skips = (2, 4)

    def __init__(self, size_px: int, channels: int = 3, latent: int = 64) -> None:
        super().__init__()
        widths = [min(256, 32 * 2 ** (number // 2)) for number in range(round(math.log2(size_px)))]
        pairs = list(zip([channels, *widths], widths, strict=False))  # of channels, before and after each block
        self.down = nn.ModuleList(self._block(convolution(before, after, 4, 2), after) for before, after in pairs)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(widths[-1], latent),
            nn.LeakyReLU(LEAK),
            nn.Linear(latent, widths[-1]),
            nn.LeakyReLU(LEAK),
            nn.Unflatten(1, (widths[-1], 1, 1)),
        )
        self.up = nn.ModuleList(
            self._block(transposed(before, after, 4, 2), after)
            for after, before in zip([widths[0], *widths], widths, strict=False)
        )  # the first one is the last that is used
        self.last = nn.Sequential(convolution(widths[0], channels, 3, 1), nn.Sigmoid())
        self.apply(scale_weights)

    def forward(self, images: Tensor) -> Tensor:
        maps, kept = images, {}
        for number, block in enumerate(self.down, start=1):
            maps = kept[number] = block(maps)
        maps = self.dense(maps)
        for number, block in reversed(list(enumerate(self.up))):
            maps = block(maps)
            maps = maps + kept[number] if number in self.skips else maps
        return self.last(maps)

    def _block(self, layer: nn.Module, after: int) -> nn.Module:
        return nn.Sequential(layer, nn.LeakyReLU(LEAK))


class BackboneCAE(nn.Module):
    """`backbone`'s four levels; two 1x1 convolutions to 512; transposed convolutions back to the image, to each of
    which the backbone's level of the same size is added.

    A gray image is shown to the backbone as three equal colors.
    """

    bottleneck_width = 512
    up_widths = (512, 256, 128, 64)

    def __init__(self, size_px: int, channels: int = 3, backbone: Encoder | None = None) -> None:
        super().__init__()
        backbone = backbone or Encoder(DEFAULT_ARCHITECTURE)
        backbone.stages.check_halves(backbone.architecture, "the auto-encoder on a backbone")
        self.architecture = backbone.architecture
        self.stages = backbone.stages
        # Of the backbone's file, so they have to be among the weights of this one.
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        widths = [backbone.channels[level] for level in LEVELS]
        self.middle = nn.Sequential(
            *_normalized(nn.Conv2d(widths[-1], self.bottleneck_width, 1)),
            *_normalized(nn.Conv2d(self.bottleneck_width, self.bottleneck_width, 1)),
        )
        self.up = nn.ModuleList(
            nn.Sequential(*_normalized(nn.ConvTranspose2d(before, after, 4, 2, 1)))
            for before, after in zip((self.bottleneck_width, *self.up_widths), self.up_widths, strict=False)
        )
        self.shortcuts = nn.ModuleList(
            nn.Conv2d(width, after, 1) for width, after in zip(widths[-2::-1], self.up_widths, strict=False)
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(self.up_widths[-1], channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        normalized = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        levels = list(self.stages(normalized, LEVELS).values())
        maps = self.middle(levels[-1])
        for number, block in enumerate(self.up):
            maps = block(maps)
            if number < len(self.shortcuts):  # the last one is as large as no level
                maps = maps + self.shortcuts[number](levels[-2 - number])
        return self.last(maps)

    def pretrained(self) -> nn.Module:
        """The part that is frozen at first."""
        return self.stages


def _normalized(convolution: nn.Module) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


class InspectionAE(nn.Module):
    """Three times two convolutions and pooling, then `latent` numbers at each of 32x32 positions (at 256 px), and the
    same way back by up-sampling. With `skips`, what each pair gives before its pooling is added on the way back."""

    widths = (32, 64, 128)

    def __init__(self, size_px: int, channels: int = 3, latent: int = 512, skips: bool = False) -> None:
        super().__init__()
        self.skips = skips
        befores = (channels, *self.widths)
        self.down = nn.ModuleList(
            _two_layers(before, after) for before, after in zip(befores, self.widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(
            _two_layers(self.widths[-1], 256), _one_layer(256, latent), _one_layer(latent, 256)
        )
        befores = (256, *self.widths[::-1])
        self.up = nn.ModuleList(
            _two_layers(before, after) for before, after in zip(befores, self.widths[::-1], strict=False)
        )
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.Sequential(nn.Conv2d(self.widths[0], channels, 3, padding=1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        maps, kept = images, []
        for pair in self.down:
            kept.append(pair(maps))
            maps = self.pool(kept[-1])
        maps = self.bottleneck(maps)
        for pair, skipped in zip(self.up, reversed(kept), strict=True):
            maps = pair(self.enlarge(maps))
            maps = maps + skipped if self.skips else maps
        return self.last(maps)


def _one_layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def _two_layers(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_one_layer(before, after), *_one_layer(after, after))
