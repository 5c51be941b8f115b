"""A convolutional auto-encoder whose encoder is a backbone that was trained elsewhere: torchvision's, or our own."""

from torch import Tensor, nn

from baselines.autoencoders.networks import check_size
from pretrain.encoder import LEVELS, Encoder

MIDDLE = 512
WIDTHS = (512, 256, 128, 64)


class BackboneCAE(nn.Module):
    """`backbone`'s four levels; two 1x1 convolutions to 512; transposed convolutions back to the image, to each of
    which the backbone's level of the same size is added.

    A gray image is shown to the backbone as three equal colors.
    """

    def __init__(self, size_px: int, channels: int = 3, backbone: Encoder | None = None) -> None:
        check_size("backbone", size_px, 32, 64)
        super().__init__()
        backbone = backbone or Encoder("resnet18")
        self.architecture = backbone.architecture
        self.stages = nn.ModuleDict(backbone.stages)
        # Of the backbone's file, so they have to be among the weights of this one.
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        widths = [backbone.channels[level] for level in LEVELS]
        self.middle = nn.Sequential(*_layer(nn.Conv2d(widths[-1], MIDDLE, 1)), *_layer(nn.Conv2d(MIDDLE, MIDDLE, 1)))
        self.up = nn.ModuleList(
            nn.Sequential(*_layer(nn.ConvTranspose2d(before, after, 4, 2, 1)))
            for before, after in zip((MIDDLE, *WIDTHS), WIDTHS, strict=False)
        )
        self.shortcuts = nn.ModuleList(
            nn.Conv2d(width, after, 1) for width, after in zip(widths[-2::-1], WIDTHS, strict=False)
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(WIDTHS[-1], channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        maps, levels = (images.expand(-1, 3, -1, -1) - self.mean) / self.std, []
        for level in LEVELS:
            maps = self.stages[level](maps)
            levels.append(maps)
        maps = self.middle(maps)
        for number, block in enumerate(self.up):
            maps = block(maps)
            if number < len(self.shortcuts):
                maps = maps + self.shortcuts[number](levels[-2 - number])
        return self.last(maps)

    def pretrained(self) -> nn.Module:
        """The part that is frozen at first."""
        return self.stages


def _layer(convolution: nn.Module) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
