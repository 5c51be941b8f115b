"""The encoder: a backbone with named feature levels, and the one file that holds it.

The file is safetensors. Its header says under one key, as JSON, everything that is not a weight: architecture, input
size, levels, normalization, what the encoder started from, what it was pretrained on and how. Reading it runs nothing
that it brings.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.backbone import LEVELS, TIMM, make_backbone
from pretrain.command import UserError, nearest
from pretrain.data.arrays import given, opened
from pretrain.files import is_foreign, read_tensors, write_tensors
from pretrain.training.device import full_precision
from pretrain.training.memory import in_parts
from pretrain.weights import HUB, IMAGENET, Origin, Start, as_timm_loads, imagenet_file, read_state_dict

FORMAT = 2  # 2: says what the encoder started from; files of format 1 are read, their start is not known
DEFAULT_ARCHITECTURE = "efficientnet_lite0"
DEFAULT_SIZE_PX = 224


class Encoder(nn.Module):
    """float32 RGB (b, 3, h, w) in [0, 1] -> feature maps (b, channels, about h / stride, about w / stride) by level.

    Levels are what follows a ResNet's layer1 to layer4, a ConvNeXt's four stages, or blocks 1, 2, 4 and 6 of an
    EfficientNet-Lite; of `timm/NAME`, see `TimmBackbone`. `channels` and `strides` give their sizes without running
    anything. Images of any size from 32 px, of a ViT whole patches; `input_size_px` is what it was trained at, `levels`
    what it gives unless asked for others. Weights are random, a function of `seed` alone, and such an encoder has no
    `origin`; without a seed they are not drawn, for `_fill` to bring others. `started_from` is kept through training,
    saving and loading; none where it is not known. Raises UserError for an unknown architecture or level.
    """

    def __init__(
        self,
        architecture: str = "resnet18",
        seed: int | None = 0,
        *,
        input_size_px: int | None = None,
        levels: Sequence[str] = LEVELS,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        origin: Origin | None = None,
        started_from: Start | None = None,
    ) -> None:
        super().__init__()
        self.architecture, self.stages = architecture, make_backbone(architecture, seed)
        self.input_size_px = input_size_px or max(self.stages.size_px or (DEFAULT_SIZE_PX,))
        self.stages.check(architecture, self.input_size_px, self.input_size_px)
        self.origin, self.started_from = origin, started_from
        self.levels = _known(levels)
        self.channels, self.strides = self.stages.channels, self.stages.strides
        # In the header of the file, so not among the weights.
        for name, values in (("mean", mean or self.stages.mean), ("std", std or self.stages.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, images: Tensor, levels: Sequence[str] | None = None, after: str | None = None
    ) -> dict[str, Tensor]:
        """The feature maps of `levels` (default: self.levels), shallow ones first; nothing deeper is computed. With
        `after`, which timm's models do not know, `images` are that level's maps, and `levels` deeper ones."""
        if not images.is_floating_point():
            raise TypeError(f"images must be float32 in [0, 1], not {images.dtype}.")
        wanted = self.levels if levels is None else _known(levels)
        if after is not None:
            return self.stages(images, wanted, after)
        self.stages.check(self.architecture, *images.shape[-2:])
        return self.stages((images - self.mean) / self.std, wanted)

    def pooled(self, images: Tensor) -> Tensor:
        """The average of level4 over all places: (b, 3, h, w) -> (b, channels["level4"])."""
        return self(images, ("level4",))["level4"].mean((2, 3))

    @full_precision()
    @torch.inference_mode()
    def embed(self, images: object, size_px: int | None = None, batch_size: int = 32) -> np.ndarray:
        """One vector an image, `pooled`: float32 (n, channels["level4"]) of a folder or of many, (channels["level4"],)
        of one alone. Images are paths, arrays, tensors or Pillow's, seen as squares of `size_px`, by default of
        `input_size_px`, as `embeddings/extract.py` sees them. Raises UserError for what is no image, and for none."""
        originals, is_one = given(images)
        if not originals:
            raise UserError("there are no images to embed: give a folder that has some, or a list of paths or images.")
        was_training, size_px = self.training, size_px or self.input_size_px
        self.eval()
        try:
            vectors = []
            for start in range(0, len(originals), batch_size):
                pixels = [opened(image, size_px).pixels for image in originals[start : start + batch_size]]
                batch = torch.from_numpy(np.stack(pixels)).to(self.mean.device).permute(0, 3, 1, 2)  # (b, 3, h, w)
                vectors += [part.float().cpu().numpy() for part in in_parts(self.pooled, batch.float().div_(255))]
        finally:
            self.train(was_training)
        return vectors[0][0] if is_one else np.concatenate(vectors)

    @property
    def history(self) -> str:
        """What a report says of it beside its name."""
        saw = self.origin and (", ".join(self.origin.categories) or self.origin.data)
        return f"started from {self.started_from or 'weights that are not known'}" + (f", saw {saw}" if saw else "")

    def as_json(self) -> dict:
        """The same for files, as plain JSON."""
        return {
            "architecture": self.architecture,
            "fingerprint": fingerprint(self),
            "started_from": self.started_from and asdict(self.started_from),
            "saw": list(self.origin.categories) if self.origin else [],
        }

    def save(self, path: Path | str) -> None:
        """Write all that `load_encoder` needs to one file. An error leaves an earlier file at `path` whole."""
        metadata = {
            "format": FORMAT,
            "architecture": self.architecture,
            "input_size_px": self.input_size_px,
            "levels": self.levels,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "origin": self.origin and asdict(self.origin),
            "started_from": self.started_from and asdict(self.started_from),
            "fingerprint": fingerprint(self),
            "versions": _versions(),
            "commit": commit(),
        }
        write_tensors(Path(path), _weights(self), metadata)


def make_encoder(
    architecture: str = DEFAULT_ARCHITECTURE,
    start: Path | str = "random",
    *,
    seed: int = 0,
    input_size_px: int | None = None,
    levels: Sequence[str] = LEVELS,
) -> Encoder:
    """An encoder to train. `start` is `random`, `imagenet` (weights that are on this machine), `hub` (the same,
    downloaded where they are not), a state dict `NAME.pth` or `NAME.safetensors` in torchvision's or timm's naming, or
    an encoder file to continue, which brings its own normalization and origin. The encoder's `started_from` says which.
    Raises UserError where that cannot be had, or is of another architecture.
    """
    encoder = _started(architecture, start, seed, input_size_px, levels)
    encoder.started_from = Start(str(start), fingerprint(encoder))
    return encoder


def _started(
    architecture: str, start: Path | str, seed: int, input_size_px: int | None, levels: Sequence[str]
) -> Encoder:
    is_random = str(start) == "random"
    encoder = Encoder(architecture, seed if is_random else None, input_size_px=input_size_px, levels=levels)
    path = Path(start)
    if is_random:
        return encoder
    if str(start) in (IMAGENET, HUB):
        path, encoder.origin = imagenet_file(architecture, may_download=str(start) == HUB)
        state = read_state_dict(path)
        if architecture.startswith(TIMM):
            state = as_timm_loads(architecture.removeprefix(TIMM), state, path)
    elif not path.is_file():
        raise UserError(f"there is no file {path} to start from; give imagenet, hub, random, a .pth or encoder file.")
    elif path.suffix == ".safetensors" and not is_foreign(path):
        continued = load_encoder(path)
        if continued.architecture != architecture:
            raise UserError(
                f"{path} holds a {continued.architecture}, not a {architecture}: ask for that architecture."
            )
        continued.input_size_px, continued.levels = encoder.input_size_px, encoder.levels
        return continued.train()
    else:
        encoder.origin = Origin(f"whatever {path.name} has seen", recipe={"start": path.name})
        state = read_state_dict(path)
    _fill(encoder, encoder.stages.renamed(state), path)
    return encoder


def load_encoder(path: Path | str) -> Encoder:
    """The encoder in a file that `Encoder.save` wrote, bit for bit, in eval mode. Raises UserError for any other
    file."""
    if not Path(path).is_file():
        raise UserError(f"there is no encoder file {path}; python pretrain/simclr.py makes one.")
    weights, metadata = read_tensors(Path(path))
    if "architecture" not in metadata:
        raise UserError(f"{path} is no encoder file; python pretrain/simclr.py makes one.")
    if metadata.get("format") not in (1, FORMAT):
        raise UserError(f"{path} has format {metadata.get('format')}, this heldout reads {FORMAT}: update heldout.")
    try:
        origin = metadata["origin"] and Origin(
            **{**metadata["origin"], "categories": tuple(metadata["origin"]["categories"])}
        )
        started_from = metadata.get("started_from") and Start(**metadata["started_from"])
        names = ("architecture", "input_size_px", "levels", "mean", "std")
        encoder = Encoder(
            **{name: metadata[name] for name in names}, seed=None, origin=origin, started_from=started_from
        )
    except UserError as error:
        raise UserError(f"{path} cannot be used here: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the header of {path} is damaged ({error}); make the encoder again.") from None
    _fill(encoder, weights, path)
    return encoder.eval()


def asked_encoder(start: Encoder | Path | str, architecture: str = DEFAULT_ARCHITECTURE, seed: int = 0) -> Encoder:
    """An encoder to ask, in eval mode: as it is, from an encoder file, or what `make_encoder` starts from."""
    if isinstance(start, Encoder):
        return start
    is_file = str(start).endswith(".safetensors") and not is_foreign(Path(start))
    return load_encoder(start) if is_file else make_encoder(architecture, start, seed=seed).eval()


def fingerprint(encoder: Encoder | Path | str) -> str:
    """16 hexadecimal digits of an encoder or its file: equal for equal architecture, normalization and weights."""
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder)
    digest = blake2b(encoder.architecture.encode(), digest_size=8)
    for name, weight in sorted({"mean": encoder.mean.float(), "std": encoder.std.float(), **_weights(encoder)}.items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _known(levels: Sequence[str]) -> tuple[str, ...]:
    if not levels:
        raise UserError(f"no feature level was named; choose from {', '.join(LEVELS)}.")
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"there is no feature level {level!r}; {nearest(level, LEVELS)}")
    return tuple(levels)


def _weights(encoder: Encoder) -> dict[str, Tensor]:
    """All weights and batch statistics by name, on the CPU, as float32 (a counter stays what it is)."""
    state = encoder.stages.state_dict()
    return {
        name: weight.to("cpu", torch.float32 if weight.is_floating_point() else weight.dtype).contiguous()
        for name, weight in state.items()
    }


def _fill(encoder: Encoder, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy `weights` into the encoder. Raises UserError unless they are exactly its own, by name and shape."""
    expected = encoder.stages.state_dict()
    wrong = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [n for n, w in weights.items() if n in expected and w.shape != expected[n].shape],
    }
    found = [f"{len(names)} {how} ({', '.join(names[:2])})" for how, names in wrong.items() if names]
    if found:
        raise UserError(
            f"{path} does not hold the weights of {encoder.architecture}: {', '.join(found)}; name the "
            "architecture that it was made with, or another file."
        )
    encoder.stages.load_state_dict(weights)


def _versions() -> dict[str, str | None]:
    try:
        own = version("heldout")
    except PackageNotFoundError:  # run from a checkout that was never installed; `commit` says which
        own = None
    return {"heldout": own, "torch": torch.__version__, "torchvision": version("torchvision"), "timm": version("timm")}


@cache  # the code that runs is what was imported
def commit() -> str | None:
    """The commit of the checkout that this file lies in, marked where files differ from it; none when installed."""
    repository = Path(__file__).resolve().parents[1]
    if not (repository / ".git").exists():
        return None
    command = ["git", "-C", str(repository), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
