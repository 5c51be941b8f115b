"""Networks for class activation maps: convolutions, one average over all positions, one linear layer.

What is averaged and then weighed can as well be weighed and then averaged: the weights of the class `anomaly` on the
last features' channels say where in the image the evidence is (Zhou et al. 2016, https://arxiv.org/abs/1512.04150).
The published features are VGG16's; any backbone of pretrain/backbone.py gives others.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.backbone import IMAGENET_MEAN, IMAGENET_STD, LEVELS, Backbone, CutBackbone, make_backbone
from pretrain.command import UserError
from pretrain.encoder import make_encoder
from pretrain.weights import HUB, IMAGENET, imagenet_file, read_state_dict

RANDOM = "random"
VGG16 = "vgg16"
# torchvision's VGG16, configuration D of https://arxiv.org/abs/1409.1556: channels of its convolutions, and the
# poolings between its five blocks.
POOL = 0
LAYERS = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
LEVEL_ENDS = (10, 17, 24)
# Where weights were pretrained, levels up to level3 are not trained: of VGG16 that is up to and with conv4_3, as
# published. The pooling that follows has no weights: what it gives is four times smaller, and all that level4 needs.
FROZEN, LAST = LEVELS[2:]
MIN_PX = 32
GOOD, ANOMALY = 0, 1


def start_arguments(quick: bool) -> dict[str, object]:
    """What VGG16 begins with in a study: ImageNet's weights where torch's cache has them. Without, nothing is frozen,
    and the published size would take hours on a processor to learn from a few hundred images."""
    if has_imagenet_weights() and not quick:
        return {"weights": IMAGENET}
    return {"weights": RANDOM, "width": 0.25, "input_px": 128, "learning_rate": 1e-3}


def title_of(architecture: str) -> str:
    """What a person knows the method by."""
    return "VGG16-CAM" if architecture == VGG16 else f"CAM on {architecture}"


class VggBackbone(CutBackbone):
    """VGG16 up to conv5_3's ReLU, torchvision's `features[:-1]`, its layers numbered as there. Level1 to level3 end
    with the second to the fourth pooling, so that level4 is the fifth block. `width` scales all channels."""

    def __init__(self, width: float = 1.0) -> None:
        layers: list[nn.Module] = []
        entering = 3
        for channels in LAYERS:
            if channels == POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            leaving = max(1, round(channels * width))
            layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU()]
            entering = leaving
        numbered = [(str(number), layer) for number, layer in enumerate(layers)]
        cuts = zip(LEVELS, (0, *LEVEL_ENDS), (*LEVEL_ENDS, None), strict=True)
        nn.ModuleDict.__init__(self, {level: nn.Sequential(OrderedDict(numbered[a:b])) for level, a, b in cuts})
        self.architecture, self.mean, self.std = VGG16, IMAGENET_MEAN, IMAGENET_STD
        self.channels, self.strides = {LAST: entering}, {LAST: 16}

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        """torchvision's convolutions by our names; its classifier of a thousand classes is of no use here."""
        return {name: state.get(f"features.{name.partition('.')[2]}") for name in self.state_dict()}


class CamNetwork(nn.Module):
    """float32 RGB (b, 3, h, w) in [0, 1], 32 px or more -> logits (b, 2) of good and anomaly.

    `early` gives what is frozen where weights were pretrained, level3, and `late` level4 of that.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.features, self.is_frozen = backbone, False
        # Among the weights: an encoder's file may bring others than its architecture's.
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(backbone, name)).view(1, 3, 1, 1))
        self.classifier = nn.Linear(backbone.channels[LAST], 2)

    def freeze(self) -> None:
        """Train neither level1 to level3 from now on, nor any statistics of batch normalization: frozen layers give the
        same of an image in every step."""
        for weights in self.features.weights_until(FROZEN):
            weights.requires_grad_(False)
        self.is_frozen = True
        self.eval()

    def train(self, mode: bool = True) -> "CamNetwork":
        return super().train(mode and not self.is_frozen)

    @property
    def is_cut(self) -> bool:
        """Whether the last level can be computed from the one before; a model of timm gives its levels as a whole."""
        return isinstance(self.features, CutBackbone)

    def early(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> level3 (b, c, h / 16, w / 16); of a timm model the normalized images."""
        normalized = (images - self.mean) / self.std
        return self.features(normalized, (FROZEN,))[FROZEN] if self.is_cut else normalized

    def late(self, early: Tensor) -> Tensor:
        """What `early` gives -> level4: VGG16's conv5_3 at a stride of 16, others mostly at 32."""
        return self.features[LAST](early) if self.is_cut else self.features(early, (LAST,))[LAST]

    def logits(self, late: Tensor) -> Tensor:
        """Level4 (b, c, h, w) -> (b, 2), of its average over all positions. VGG16's is max-pooled before, as published:
        then it has 7 x 7 positions of 224 px, as many as others' level4."""
        pooled = F.max_pool2d(late, 2) if isinstance(self.features, VggBackbone) else late
        return self.classifier(pooled.mean((2, 3)))

    def activation_maps(self, late: Tensor) -> Tensor:
        """Level4 (b, c, h, w) -> (b, h, w): the sum over channels of their weight for `anomaly` times themselves."""
        # The bias is left out: it says how often anything is anomalous, not where.
        return torch.einsum("bchw,c->bhw", late, self.classifier.weight[ANOMALY])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.late(self.early(images)))


def untrained_backbone(architecture: str, width: float = 1.0, seed: int = 0) -> Backbone:
    """VGG16 or any other. Raises UserError for an unknown one, and for a width that is none or not VGG16's."""
    if not 0 < width <= 4:
        raise UserError(f"a width of {width} is no network: give one above 0, such as 0.25; 1 is VGG16.")
    if architecture == VGG16:
        return VggBackbone(width)
    if width != 1:
        raise UserError(f"{architecture} has one width: leave {width} out, or take {VGG16}, whose channels it scales.")
    return make_backbone(architecture, seed)


def make_network(architecture: str, weights: str = RANDOM, width: float = 1.0, seed: int = 0) -> CamNetwork:
    """A network to train. `weights` is random, imagenet (those on this machine), hub (downloaded), or a file: of VGG16
    a .pth as torchvision publishes it, of another backbone any that an encoder can start from. Of pretrained ones all
    but the last level is frozen.

    What is random is a function of `seed`. Raises UserError where weights cannot be had or do not fit.
    """
    if weights != RANDOM and width != 1:
        raise UserError(f"pretrained weights are of width 1, not {width}: leave the width out, or start from random.")
    # On the CPU, and from its generator alone: torch.manual_seed would also reseed every GPU.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = CamNetwork(untrained_backbone(architecture, width, seed))
        if architecture == VGG16:
            network.features.apply(_scale_weights)
    if weights == RANDOM:
        return network
    if architecture == VGG16:
        path = weights_file(weights)
        _fill(network.features, read_state_dict(path), path)
    else:
        encoder = make_encoder(architecture, weights)
        network.features.load_state_dict(encoder.stages.state_dict())
        network.mean, network.std = encoder.mean, encoder.std
    network.freeze()
    return network


def check_start(architecture: str, weights: str, size_px: int | None) -> tuple[str, ...]:
    """The categories that the weights have seen. Raises UserError for weights that are not there, and for images of a
    size that the backbone cannot take."""
    if size_px is not None and size_px < MIN_PX:
        raise UserError(f"images of {size_px} px are too small for {architecture}: give {MIN_PX} px or more.")
    if architecture != VGG16:
        origin = make_encoder(architecture, weights, input_size_px=size_px).origin
        return origin.categories if origin else ()
    if weights != RANDOM:
        weights_file(weights)
    return ()


def _scale_weights(layer: nn.Module) -> None:
    """As torchvision does: torch's own initial weights let the signal fade over thirteen layers."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def weights_file(weights: str) -> Path:
    """The file that `weights` names; of `hub`, downloaded where it is not there yet."""
    if weights in (IMAGENET, HUB):
        try:
            return imagenet_file(VGG16, may_download=weights == HUB)[0]
        except UserError as error:
            raise UserError(f"{error} That is: weights FILE.pth, or weights random.") from None
    if not Path(weights).is_file():
        raise UserError(f"there is no file {weights} to start from; give {RANDOM}, {IMAGENET}, or a VGG16 as .pth.")
    return Path(weights)


def has_imagenet_weights() -> bool:
    """Whether torch's cache has them; nothing is downloaded."""
    try:
        imagenet_file(VGG16)
    except UserError:
        return False
    return True


def _fill(backbone: VggBackbone, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy torchvision's convolutions into the backbone."""
    expected, convolutions = backbone.state_dict(), backbone.renamed(state)
    wrong = [n for n, weight in convolutions.items() if weight is None or weight.shape != expected[n].shape]
    if wrong:
        raise UserError(
            f"{path} does not hold a VGG16: features.{wrong[0].partition('.')[2]} is missing or of another shape; give "
            f"torchvision's vgg16 as .pth, or start from {RANDOM}."
        )
    backbone.load_state_dict(convolutions)
