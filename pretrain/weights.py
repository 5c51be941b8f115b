"""Weights from outside: where they are found, how they are read without running any of it, what they saw."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from pretrain.command import UserError


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A .pth from outside, read without running anything of it. Raises UserError for what is no plain state dict."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of arbitrary bytes the unpickler raises almost anything
        state = None
    if not isinstance(state, Mapping) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise UserError(f"{path} is damaged or no plain state dict; give one as torchvision publishes them.")
    return dict(state)


def imagenet_file(architecture: str) -> tuple[Path, Origin]:
    """torchvision's weights in torch's cache, downloaded where they are not there yet."""
    weights = get_model_weights(architecture).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
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
