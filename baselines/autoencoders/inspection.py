"""The 256 px auto-encoder of an inspection line: pairs of convolutions, a bottleneck that keeps places."""

from torch import Tensor, nn

from baselines.autoencoders.networks import check_size


class InspectionAE(nn.Module):
    """Three times two convolutions and pooling, then `latent` numbers at each of 32x32 places (at 256 px), and the same
    way back by up-sampling. With `skips`, what each pair gives before its pooling is added on the way back."""

    widths = (32, 64, 128)

    def __init__(self, size_px: int, channels: int = 3, latent: int = 512, skips: bool = False) -> None:
        check_size("inspection", size_px, 2 ** len(self.widths), 32)
        super().__init__()
        self.skips = skips
        befores = (channels, *self.widths)
        self.down = nn.ModuleList(_pair(before, after) for before, after in zip(befores, self.widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(_pair(self.widths[-1], 256), _single(256, latent), _single(latent, 256))
        befores = (256, *self.widths[::-1])
        self.up = nn.ModuleList(_pair(before, after) for before, after in zip(befores, self.widths[::-1], strict=False))
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


def _single(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def _pair(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_single(before, after), *_single(after, after))
