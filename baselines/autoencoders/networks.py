"""The auto-encoders by name, and the first two of them: AE and VAE, whose encoder ends in a hundred numbers.

A network takes images (b, channels, size_px, size_px) in [0, 1] and gives as many of the same shape and range. Its
size is fixed when it is made.
"""

import inspect
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.autoencoders.cae import (
    LEAK,
    BackboneCAE,
    BaselineCAE,
    InceptionCAE,
    InspectionAE,
    MVTec,
    MVTec2,
    SkipCAE,
)
from pretrain.command import UserError, nearest

MIN_PX, MAX_PX = 32, 1024


class AE(nn.Module):
    """Layers like DCGAN's (https://arxiv.org/abs/1511.06434): strided convolutions down to 4x4 and to `latent` numbers,
    and the same way back, without biases.

    The width doubles from `width` at every halving, up to sixteen times, which is reached at 128 px.
    """

    codes = 1  # numbers that the encoder gives for each latent one

    def __init__(self, size_px: int, channels: int = 3, width: int = 128, latent: int = 100) -> None:
        super().__init__()
        self.latent = latent
        halvings = round(math.log2(size_px)) - 2  # to 4x4
        # At 128 px and width 128 that is 128 to 2048; larger images get further layers of 2048.
        widths = [width * 2 ** min(4, number) for number in range(halvings)]
        down = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK)]
        for before, after in zip(widths, widths[1:], strict=False):
            down += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(LEAK)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], self.codes * latent, 4, bias=False))
        up = [nn.ConvTranspose2d(latent, widths[-1], 4, bias=False), nn.BatchNorm2d(widths[-1]), nn.ReLU()]
        for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
            up += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


class VAE(AE):
    """The same with a Gaussian in place of each latent number (https://arxiv.org/abs/1312.6114). Its mean is what
    reconstructs an image: a sample would give another score at each call."""

    codes = 2

    def distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of images: (b, latent, 1, 1) each."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)  # (b, 2 * latent, 1, 1) halved
        return mean, log_variance

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.distribution(images)[0])

    def sampled(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions from one sample each, `noise` standard normal (b, latent), and the divergences (b,) of the
        Gaussians from the standard one: -1/2 sum(1 + log variance - mean^2 - variance)."""
        mean, log_variance = self.distribution(images)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum((1, 2, 3))
        # The sample is a function of mean and variance, so gradients reach both (the paper's reparameterization).
        return self.decoder(mean + (0.5 * log_variance).exp() * noise[:, :, None, None]), divergence


class Architecture(NamedTuple):
    """A network's class, its own size, the name under which a person knows it, and the sizes that it can take."""

    network: type[nn.Module]
    size_px: int
    title: str
    multiple_px: int | None  # none: powers of two
    min_px: int = MIN_PX


ARCHITECTURES = {
    "ae": Architecture(AE, 128, "auto-encoder", None),
    "vae": Architecture(VAE, 128, "variational auto-encoder", None),
    "mvtec": Architecture(MVTec, 256, "CAE mvtec", 32, 64),
    "mvtec2": Architecture(MVTec2, 256, "CAE mvtec2", 32, 64),
    "baseline": Architecture(BaselineCAE, 256, "baselineCAE", 64, 64),
    "inception": Architecture(InceptionCAE, 256, "inceptionCAE", 64, 64),
    "skip": Architecture(SkipCAE, 256, "skipCAE", None),
    "backbone": Architecture(BackboneCAE, 256, "CAE on a backbone", 32, 64),
    "inspection": Architecture(InspectionAE, 256, "inspection auto-encoder", 8),
}


def architecture_of(model: str) -> Architecture:
    """An architecture by its name. Raises UserError for an unknown name."""
    if model not in ARCHITECTURES:
        raise UserError(f"there is no auto-encoder {model!r}; {nearest(model, ARCHITECTURES)}")
    return ARCHITECTURES[model]


def make_network(model: str, size_px: int, channels: int, seed: int, options: dict) -> nn.Module:
    """A network with random weights, a function of `seed` alone. `options` go to its constructor.

    Raises UserError for a model, a size or an option that there is not.
    """
    check_size(model, size_px)
    check_options(model, options)
    # On the CPU, and from its generator alone: torch.manual_seed would also reseed every GPU.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return architecture_of(model).network(size_px, channels, **options)


def check_size(model: str, size_px: int) -> None:
    """Raise UserError for a side that the architecture cannot take."""
    _, _, _, multiple_px, min_px = architecture_of(model)
    if multiple_px is None:
        allowed = [2**power for power in range(round(math.log2(MIN_PX)), round(math.log2(MAX_PX)) + 1)]
        if size_px not in allowed:
            choices = ", ".join(map(str, allowed))
            raise UserError(f"{model} cannot take {size_px} px: choose a power of two, {choices}.")
    elif size_px % multiple_px or not min_px <= size_px <= MAX_PX:
        below = max(min_px, size_px // multiple_px * multiple_px)
        raise UserError(
            f"{model} cannot take {size_px} px: choose a multiple of {multiple_px} from {min_px} to {MAX_PX}, "
            f"such as {min(below, MAX_PX)}."
        )


def check_options(model: str, options: dict) -> None:
    """Raise UserError for an option that the architecture does not have."""
    known = list(inspect.signature(architecture_of(model).network).parameters)[2:]  # after size_px and channels
    for name in options:
        if name not in known:
            has = f"its own are {', '.join(known)}" if known else "it has none of its own"
            raise UserError(f"{model} has no option {name}: {has}.")
