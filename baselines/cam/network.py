"""VGG16 for class activation maps: convolutions, one average over all positions, one linear layer.

What is averaged and then weighed can as well be weighed and then averaged: the weights of the class `anomaly` on the
last convolution's channels say where in the image the evidence is (Zhou et al. 2016, https://arxiv.org/abs/1512.04150).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.backbone import IMAGENET_MEAN, IMAGENET_STD
from pretrain.command import UserError
from pretrain.weights import HUB, IMAGENET, imagenet_file, read_state_dict

RANDOM = "random"
# torchvision's VGG16, configuration D of https://arxiv.org/abs/1409.1556: channels of its convolutions, and the
# poolings between its five blocks.
POOL = 0
LAYERS = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
# Up to and with the ReLU of conv4_3 nothing is trained where weights were pretrained. The pooling that follows has no
# weights: what it gives is four times smaller, and all that the trained layers need to know.
FROZEN = 24
MIN_PX = 32
GOOD, ANOMALY = 0, 1


def start_arguments(quick: bool) -> dict[str, object]:
    """What VGG16 begins with in a study: ImageNet's weights where torch's cache has them. Without, nothing is frozen,
    and the published size would take hours on a processor to learn from a few hundred images."""
    if has_imagenet_weights() and not quick:
        return {"weights": IMAGENET}
    return {"weights": RANDOM, "width": 0.25, "input_px": 128, "learning_rate": 1e-3}


class VggNetwork(nn.Module):
    """float32 RGB (b, 3, h, w) in [0, 1], 32 px or more -> logits (b, 2) of good and anomaly.

    `width` scales all channels; 1 is VGG16. Parts of `features` are numbered as torchvision numbers them.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = []
        entering = 3
        for channels in LAYERS:
            if channels == POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            leaving = max(1, round(channels * width))
            layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU()]
            entering = leaving
        self.features = nn.Sequential(*layers)  # ends with conv5_3's ReLU: torchvision's features[:-1]
        self.classifier = nn.Linear(entering, 2)

    def early(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 512, h / 16, w / 16): what is frozen where weights were pretrained."""
        return self.features[:FROZEN]((images - self.mean) / self.std)

    def late(self, early: Tensor) -> Tensor:
        """What `early` gives -> conv5_3, of the same shape."""
        return self.features[FROZEN:](early)

    def logits(self, late: Tensor) -> Tensor:
        """conv5_3 (b, 512, h, w) -> (b, 2): max-pool 2, then the average over all positions, 7 x 7 of 224 px."""
        return self.classifier(F.max_pool2d(late, 2).mean((2, 3)))

    def activation_maps(self, late: Tensor) -> Tensor:
        """conv5_3 (b, 512, h, w) -> (b, h, w): the sum over channels of their weight for `anomaly` times themselves."""
        # The bias is left out: it says how often anything is anomalous, not where.
        return torch.einsum("bchw,c->bhw", late, self.classifier.weight[ANOMALY])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.late(self.early(images)))


def make_network(weights: str = RANDOM, width: float = 1.0, seed: int = 0) -> VggNetwork:
    """A network to train. `weights` is random, imagenet (torchvision's, in torch's cache), hub (downloaded), or a
    .pth as torchvision publishes them; of these the convolutions are taken, and the frozen ones marked.

    What is random is a function of `seed`. Raises UserError where weights cannot be had or do not fit.
    """
    if not 0 < width <= 4:
        raise UserError(f"a width of {width} is no network: give one above 0, such as 0.25; 1 is VGG16.")
    # On the CPU, and from its generator alone: torch.manual_seed would also reseed every GPU.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = VggNetwork(width)
        for layer in network.features:
            if isinstance(layer, nn.Conv2d):
                # As torchvision does: torch's own initial weights let the signal fade over thirteen layers.
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    if weights != RANDOM:
        if width != 1:
            raise UserError(
                f"pretrained weights are of width 1, not {width}: leave the width out, or start from random."
            )
        path = weights_file(weights)
        _fill(network, read_state_dict(path), path)
        network.features[:FROZEN].requires_grad_(False)
    return network


def weights_file(weights: str) -> Path:
    """The file that `weights` names; of `hub`, downloaded where it is not there yet."""
    if weights in (IMAGENET, HUB):
        try:
            return imagenet_file("vgg16", may_download=weights == HUB)[0]
        except UserError as error:
            raise UserError(f"{error} That is: weights FILE.pth, or weights random.") from None
    if not Path(weights).is_file():
        raise UserError(f"there is no file {weights} to start from; give {RANDOM}, {IMAGENET}, or a VGG16 as .pth.")
    return Path(weights)


def has_imagenet_weights() -> bool:
    """Whether torch's cache has them; nothing is downloaded."""
    try:
        imagenet_file("vgg16")
    except UserError:
        return False
    return True


def _fill(network: VggNetwork, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy torchvision's convolutions into the network; its classifier of a thousand classes is of no use here."""
    expected = network.features.state_dict()
    convolutions = {name: state.get(f"features.{name}") for name in expected}
    wrong = [n for n, weight in convolutions.items() if weight is None or weight.shape != expected[n].shape]
    if wrong:
        raise UserError(
            f"{path} does not hold a VGG16: features.{wrong[0]} is missing or of another shape; give torchvision's "
            f"vgg16 as .pth, or start from {RANDOM}."
        )
    network.features.load_state_dict(convolutions)
