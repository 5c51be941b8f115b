"""A light decoder on an encoder's feature levels that predicts, for every pixel, how to mix blurs and a residual.

SADNet does most of its work at full and half resolution; everything learned here runs at a quarter. Nothing is lost by
that: a sixteenth of the positions with sixteen times the channels hold the same pixels. At full resolution only sums
are left: of the degraded image, of its blurs at three widths, and of a residual. Since blurs need not be learned, 180
steps (10 s on one core) gained 3.1 dB where a residual of the same layers gained 0.2.
"""

from collections.abc import Sequence

from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.restoration.training import ParameterGroup
from pretrain.encoder import Encoder

LEVELS = ("level1", "level2", "level3")
FACTOR = 4  # the stride of level1
STRIDE = 16  # of level3: sides are padded to a multiple
SLOPE = 0.2
# Blurs to mix, weighted apart in brightness and in color; a negative weight sharpens.
SIGMAS_PX = (1.0, 2.0, 4.0)
ENCODER_RATE = 0.1
PREFIX = "encoder."


class ResidualBlock(nn.Module):
    """(b, channels, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(F.leaky_relu(self.first(features), SLOPE))


class EncoderRestoration(nn.Module):
    """float32 RGB (b, 3, h, w) in [0, 1], any size -> the same shape, not clamped; untrained it changes nothing.

    The encoder is not trained up to the share `frozen` of the training, and then at a tenth of the learning rate; its
    batch normalization always keeps its statistics.
    """

    stride = STRIDE
    # Peak memory of inference, measured on a CPU: 190 to 280 bytes.
    bytes_per_pixel = 320

    def __init__(self, encoder: Encoder, channels: int = 64, blocks: int = 3, frozen: float = 0.5) -> None:
        super().__init__()
        encoder.stages.check_halves(encoder.architecture, "the restorer")
        self.encoder, self.frozen = encoder, frozen
        self.laterals = nn.ModuleList(nn.Conv2d(encoder.channels[level], channels, 1) for level in LEVELS)
        self.coarse = nn.ModuleList(ResidualBlock(channels) for _ in LEVELS[1:])
        self.pixels = nn.Conv2d(3 * FACTOR**2, channels, 3, padding=1)
        self.middle = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.spread = nn.Conv2d(channels, (2 * len(SIGMAS_PX) + 3) * FACTOR**2, 1)
        # The encoder's features enter as far as they help: at full strength they drowned the pixels for many steps.
        for layer in (*self.laterals, self.spread):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def train(self, mode: bool = True) -> "EncoderRestoration":
        super().train(mode)
        self.encoder.eval()
        return self

    def groups(self) -> Sequence[ParameterGroup]:
        own = [weights for name, weights in self.named_parameters() if not name.startswith(PREFIX)]
        used = self.encoder.stages.weights_until(LEVELS[-1])
        return [ParameterGroup(own), ParameterGroup(used, ENCODER_RATE, self.frozen)]

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        pixels = self.pixels(F.pixel_unshuffle(padded, FACTOR))  # (b, channels, h / 4, w / 4)
        features = F.leaky_relu(pixels + self._encoded(padded), SLOPE)
        mix = F.pixel_shuffle(self.spread(self.middle(features)), FACTOR)  # (b, 2 * blurs + 3, h, w)
        return _mixed(padded, mix)[..., :height, :width]

    def _encoded(self, padded: Tensor) -> Tensor:
        """The encoder's levels joined top down, as in a feature pyramid (arXiv 1612.03144).

        (b, 3, h, w) -> (b, channels, h / 4, w / 4).
        """
        maps = self.encoder(padded, LEVELS)
        projected = [lateral(maps[level]) for lateral, level in zip(self.laterals, LEVELS, strict=True)]
        features = projected.pop()
        for block in self.coarse:
            features = F.interpolate(block(features), scale_factor=2.0, mode="nearest") + projected.pop()
        return features


def _mixed(images: Tensor, mix: Tensor) -> Tensor:
    """Images (b, 3, h, w) plus weighted blurs and a residual, both from `mix` (b, 2 * blurs + 3, h, w)."""
    brightness_weights, color_weights, residual = mix.split((len(SIGMAS_PX), len(SIGMAS_PX), 3), dim=1)
    restored = images + residual
    for number, sigma_px in enumerate(SIGMAS_PX):
        kernel = get_gaussian_kernel1d(2 * int(2.5 * sigma_px) + 1, sigma_px, device=images.device)
        change = filter2d_separable(images, kernel, kernel, border_type="replicate") - images
        brightness = change.mean(1, keepdim=True)
        restored = restored + brightness_weights[:, number, None] * brightness
        restored = restored + color_weights[:, number, None] * (change - brightness)
    return restored
