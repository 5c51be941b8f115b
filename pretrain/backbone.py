"""Backbones as feature levels: torchvision's networks and EfficientNet-Lite cut into four, and any model of timm.

A backbone says its levels' channels and strides, the normalization that it was published with and which image sizes it
takes, all without running an image; and it knows its weights by the names of those who published them.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pretrain.command import UserError, is_gpu_full, nearest
from pretrain.data.size import keeping_aspect, sides

LEVELS = ("level1", "level2", "level3", "level4")
STRIDES = (4, 8, 16, 32)  # of all but timm's models with one stride throughout
CHANNELS = {
    "efficientnet_lite0": (24, 40, 112, 320),
    "efficientnet_lite1": (24, 40, 112, 320),
    "efficientnet_lite2": (24, 48, 120, 352),
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "wide_resnet50_2": (256, 512, 1024, 2048),
    "convnext_tiny": (96, 192, 384, 768),
}
TIMM = "timm/"
DRAWING = {Tensor.normal_, Tensor.uniform_} | {
    getattr(nn.init, f"{name}_")
    for name in ("normal", "uniform", "trunc_normal", "kaiming_normal", "kaiming_uniform", "xavier_normal",
                 "xavier_uniform")
}  # fmt: skip
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The Lites were trained on (x * 255 - 127) / 128.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


class Backbone:
    """What both kinds share. `size_px` is the (height, width) that images must have, none where it is free; then their
    sides are multiples of `multiple_px`."""

    channels: dict[str, int]
    strides: dict[str, int]
    mean: Sequence[float]
    std: Sequence[float]
    multiple_px: int = 1
    size_px: tuple[int, int] | None = None

    def check(self, name: str, height: int, width: int) -> None:
        """Raise UserError for images of a size that it cannot take."""
        if self.size_px is not None and (height, width) != self.size_px:
            raise UserError(
                f"{name} takes images of {self.size_px[1]}x{self.size_px[0]} pixels alone, not {width}x{height}: give "
                "that size, or choose another architecture."
            )
        if height % self.multiple_px or width % self.multiple_px:
            near = max(1, round(min(height, width) / self.multiple_px)) * self.multiple_px
            instead = f"give {near}, or another multiple of {self.multiple_px}"
            if height != width:
                instead = self._size_that_fits(height, width)
            raise UserError(
                f"{name} cuts images into patches of {self.multiple_px} px, and {width}x{height} is no multiple of it: "
                f"{instead}."
            )

    def _size_that_fits(self, height: int, width: int) -> str:
        """The nearest size at which images of about that aspect are rectangles of whole patches."""
        usual, aspects = round(math.sqrt(height * width)), [share * width / height for share in (0.98, 1, 1.02)]
        for size_px in sorted(range(self.multiple_px, 4 * usual), key=lambda size_px: abs(size_px - usual)):
            rectangles = [sides(keeping_aspect(size_px, aspect)) for aspect in aspects]
            if not any(side % self.multiple_px for rectangle in rectangles for side in rectangle):
                return f"give --size-px {size_px}"
        return "crop the images to squares, or choose a CNN"

    def check_halves(self, name: str, user: str) -> None:
        """Raise UserError for levels that are not half as large one after another, which `user` is made for."""
        if tuple(self.strides.values()) != STRIDES:
            raise UserError(
                f"{user} needs levels at strides 4, 8, 16 and 32, and those of {name} are at "
                f"{', '.join(map(str, self.strides.values()))}: choose a CNN."
            )

    def settle(self, shape: tuple[int, int]) -> None:
        """Prepare for images (h, w) of one shape alone."""

    def weights_until(self, level: str) -> list[nn.Parameter]:
        """The weights that `level` and those before it need."""
        needed = {name for name, _ in self._until(level).named_parameters()}
        return [weights for name, weights in self.named_parameters() if name in needed]

    def layers_until(self, level: str) -> list[nn.Module]:
        """The layers that `level` and those before it need, but for those with a part that only deeper levels need."""
        needed = {name for name, _ in self._until(level).named_modules()}
        beyond = {name for name, _ in self.named_modules()} - needed
        above = {name[:end] for name in beyond for end in range(len(name)) if name[end] == "."} | {""}
        return [layer for name, layer in self.named_modules() if name in needed - above]

    def _until(self, level: str) -> "Backbone":
        shallow = copy.deepcopy(self)
        shallow.drop_after(level)
        return shallow


class CutBackbone(Backbone, nn.ModuleDict):
    """torchvision's or timm's network without its head; level1 to level4 follow one another, and parts keep the names
    that they had there."""

    def __init__(self, architecture: str, seed: int | None) -> None:
        body = _seeded(lambda: _untrained_body(architecture), seed)
        if is_lite(architecture):  # block 3 has the stride of block 4, and deeper ones mean more
            cuts = ("conv_stem bn1 blocks.0 blocks.1", "blocks.2", "blocks.3 blocks.4", "blocks.5 blocks.6")
        elif architecture.startswith("convnext"):
            # The head's LayerNorm goes with the head: levels are what the stages give.
            body, cuts = body.features, ("0 1", "2 3", "4 5", "6 7")
        else:
            cuts = ("conv1 bn1 relu maxpool layer1", "layer2", "layer3", "layer4")
        # A module's name must not have a dot: blocks.0 becomes blocks_0.
        parts = ([(part.replace(".", "_"), body.get_submodule(part)) for part in cut.split()] for cut in cuts)
        stages = (nn.Sequential(OrderedDict(stage)) for stage in parts)
        super().__init__(dict(zip(LEVELS, stages, strict=True)))
        self.architecture = architecture
        self.channels = dict(zip(LEVELS, CHANNELS[architecture], strict=True))
        self.strides = dict(zip(LEVELS, STRIDES, strict=True))
        self.mean, self.std = (LITE_MEAN, LITE_STD) if is_lite(architecture) else (IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, maps: Tensor, levels: Sequence[str], after: str | None = None) -> dict[str, Tensor]:
        """Normalized images (b, 3, h, w), or the maps of the level `after`, -> the maps of `levels`, shallow ones
        first; nothing deeper is computed."""
        found = {}
        first = 1 + LEVELS.index(after) if after else 0
        for level in LEVELS[first : 1 + max(map(LEVELS.index, levels))]:
            maps = self[level](maps)  # (b, channels[level], ~h / strides[level], ~w / strides[level])
            if level in levels:
                found[level] = maps
        return found

    def drop_after(self, level: str) -> None:
        """Forget what is deeper than `level`."""
        for deeper in LEVELS[1 + LEVELS.index(level) :]:
            if deeper in self:
                del self[deeper]

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict in torchvision's or timm's naming by our names, without its head."""
        lite = is_lite(self.architecture)
        if lite and "_conv_stem.weight" in state:
            # The package names its tensors otherwise than timm does, in the same order, the head last; the encoder
            # compares their shapes, and a test the features.
            return dict(zip(self.state_dict(), state.values(), strict=False))
        prefix = "features." if self.architecture.startswith("convnext") else ""
        theirs = {name: prefix + name.split(".", 1)[1].replace("blocks_", "blocks.") for name in self.state_dict()}
        return _renamed(self, theirs, state, ("fc.", "classifier.", *(("conv_head.", "bn2.") if lite else ())))


class TimmBackbone(Backbone, nn.Module):
    """A model of timm without its head and what follows the last level.

    Of a CNN, or a transformer that narrows like one, levels are the last features at strides 4, 8, 16 and 32; of one
    with a single stride (a ViT), what four of its blocks give, evenly spaced.
    """

    def __init__(self, architecture: str, seed: int | None) -> None:
        super().__init__()
        self.name, (self.model, published) = architecture, _timm_model(architecture, seed)
        found = getattr(self.model, "feature_info", None)
        if not found or not hasattr(self.model, "forward_intermediates"):
            raise UserError(f"{architecture} gives no features, only what it was trained to say: choose another model.")
        strides = [level["reduction"] for level in found]
        if set(STRIDES) <= set(strides):
            indices = [max(i for i, given in enumerate(strides) if given == stride) for stride in STRIDES]
        elif len(set(strides)) == 1 and len(strides) >= len(LEVELS):
            indices = [len(strides) * number // len(LEVELS) - 1 for number in range(1, 1 + len(LEVELS))]
            self.multiple_px = strides[0]
        else:
            listed = ", ".join(str(stride) for stride in dict.fromkeys(strides))
            raise UserError(
                f"{architecture} has features at strides {listed}; those at 4, 8, 16 and 32 are needed, or four blocks "
                "of one stride: choose another model."
            )
        whole = set(self.model.state_dict())
        self.model.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)
        self.head = tuple(whole - set(self.model.state_dict()))  # names of what files hold and this does not
        self.indices = dict(zip(LEVELS, indices, strict=True))
        self.channels = {level: found[i]["num_chs"] for level, i in self.indices.items()}
        self.strides = {level: strides[i] for level, i in self.indices.items()}
        self.mean, self.std = published["mean"], published["std"]
        if published.get("fixed_input_size") and not _is_dynamic(self.model):
            self.size_px = tuple(published["input_size"][1:])

    def forward(self, images: Tensor, levels: Sequence[str]) -> dict[str, Tensor]:
        """Normalized images (b, 3, h, w) -> the maps of `levels`, shallow ones first; nothing deeper is computed."""
        levels = [level for level in LEVELS if level in levels]
        options = dict(stop_early=True, output_fmt="NCHW", intermediates_only=True)
        try:
            indices = [self.indices[level] for level in levels]
            maps = self.model.forward_intermediates(images, indices=indices, **options)
        except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
            if is_gpu_full(error):
                raise
            # timm does not say beforehand which sizes a model takes: DLA and HRNet want multiples of 32, for instance.
            raise UserError(
                f"{self.name} cannot compute features of {images.shape[3]}x{images.shape[2]} pixels "
                f"({' '.join(str(error).split())[:100]}): try a multiple of 32, or choose another model."
            ) from error
        return dict(zip(levels, maps, strict=True))

    def drop_after(self, level: str) -> None:
        """Forget what is deeper than `level`."""
        self.model.prune_intermediate_layers([self.indices[level]], prune_norm=True, prune_head=True)

    def settle(self, shape: tuple[int, int]) -> None:
        """Fit the positions to that shape once instead of for every image: no exporter knows that interpolation."""
        if _is_dynamic(self.model):
            self.model.set_input_size(img_size=shape)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict in timm's naming by our names, without its head."""
        return _renamed(self, {name: name.removeprefix("model.") for name in self.state_dict()}, state, self.head)


def make_backbone(architecture: str, seed: int | None) -> CutBackbone | TimmBackbone:
    """An untrained backbone, its weights a function of `seed`; without one they are not drawn, as others are to
    take their places. Raises UserError for an unknown architecture."""
    if architecture.startswith(TIMM):
        return TimmBackbone(architecture, seed)
    if architecture not in CHANNELS:
        raise UserError(
            f"there is no architecture {architecture!r}; {nearest(architecture, CHANNELS).removesuffix('.')} "
            "(or timm/NAME for a model of timm)."
        )
    return CutBackbone(architecture, seed)


def is_lite(architecture: str) -> bool:
    return architecture.startswith("efficientnet_lite")


class _Undrawn(TorchFunctionMode):
    """Random numbers are not drawn: to draw a ResNet-18's, most of them twice, takes longer than to read its file."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in DRAWING:
            return function(*args, **kwargs)
        tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
        mean = args[1] if function is Tensor.normal_ and len(args) > 1 else kwargs.get("mean", 0.0)
        with torch.no_grad():  # in place of each its mean: torch draws a truncated normal until all lie within
            return tensor.fill_(mean)


def _seeded(make, seed: int | None) -> nn.Module:
    # On the CPU, and from its generator alone: torch.manual_seed would also reseed every GPU.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        if seed is None:
            with _Undrawn():
                return make()
        torch.default_generator.manual_seed(seed)
        return make()


def _untrained_body(architecture: str) -> nn.Module:
    """As torchvision or timm build it. Their imports take 1.5 to 2 s, which a model exported to ONNX does without."""
    if is_lite(architecture):
        from timm import create_model

        return create_model(f"tf_{architecture}")
    from torchvision.models import get_model

    return get_model(architecture)


def _timm_model(architecture: str, seed: int | None) -> tuple[nn.Module, dict]:
    """timm's model of that name, for images of any size where it can, and what timm says of its weights."""
    import timm

    name = architecture.removeprefix(TIMM)
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = get_close_matches(base, timm.list_models(), n=1, cutoff=0)
        raise UserError(f"timm has no model {base!r}; did you mean {TIMM}{near[0]}?")
    try:
        published = timm.get_pretrained_cfg(name).to_dict()
    except RuntimeError:  # an unknown tag
        known = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        raise UserError(f"timm has no weights {name!r}; of {base} it has {', '.join(known) or 'none'}.") from None
    if published.get("fixed_input_size"):
        try:
            return _seeded(lambda: timm.create_model(name, dynamic_img_size=True), seed), published
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
    return _seeded(lambda: timm.create_model(name), seed), published


def _is_dynamic(model: nn.Module) -> bool:
    return getattr(model, "dynamic_img_size", False) and hasattr(model, "set_input_size")


def _renamed(
    body: nn.Module, theirs: Mapping[str, str], state: dict[str, Tensor], head: tuple[str, ...]
) -> dict[str, Tensor]:
    """Files from before 2018 lack batch normalization's counters: as new."""
    state, by_level = dict(state), {}
    for name, weight in body.state_dict().items():
        if theirs[name] in state or name.endswith("num_batches_tracked"):
            by_level[name] = state.pop(theirs[name], weight)
    return by_level | {name: weight for name, weight in state.items() if not name.startswith(head)}
