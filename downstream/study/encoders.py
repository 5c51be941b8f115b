"""Which encoder files may be judged on which categories: never on one that they saw, never demo ones on other data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import UserError
from pretrain.files import HEADER_KEY

if TYPE_CHECKING:
    from pretrain.encoder import Encoder
    from pretrain.weights import Origin

RUNS = Path("runs")
NO_ENCODER = "none"


@dataclass(frozen=True)
class Pretrained:
    """An encoder file that can be read, opened."""

    path: Path
    encoder: "Encoder"
    fingerprint: str

    @property
    def origin(self) -> "Origin | None":
        return self.encoder.origin

    @property
    def saw(self) -> tuple[str, ...]:
        return self.origin.categories if self.origin else ()


def choose_encoders(
    asked: Sequence[str], folder: Path, categories: Sequence[str], allow_seen: bool = False
) -> tuple[dict[str, list[Pretrained]], list[str]]:
    """For each test category the encoders that it may be judged with, and warnings. `asked` are files, or `none`;
    without any, the newest finished one of the same data set.

    Raises UserError where a category is left without, with the command that makes what is missing.
    """
    from pretrain.demo import is_demo

    if tuple(asked) == (NO_ENCODER,):
        return {category: [] for category in categories}, []
    if not asked:
        return _newest(folder, categories, allow_seen), []
    opened, warnings = _opened(asked)
    if not is_demo(folder) and (demo := [one for one in opened if one.origin and one.origin.is_demo]):
        raise UserError(
            f"{demo[0].path} was pretrained on demo data and says nothing of real products: pretrain one on {folder} "
            f"({_command(folder, categories)})."
        )
    chosen = {}
    for category in categories:
        chosen[category] = [one for one in opened if allow_seen or category not in one.saw]
        if not chosen[category]:
            raise UserError(
                f"every encoder given saw {category}, so figures there would say nothing of unseen products: leave it "
                f"out of --test, add --allow-seen to say so aloud, or make an encoder that did not see it: "
                f"{_command(folder, [category])}"
            )
        if seeing := [str(one.path) for one in chosen[category] if category in one.saw]:
            warnings.append(f"{category} was seen in pretraining by {', '.join(seeing)} (--allow-seen)")
    return chosen, warnings


def imagenet_encoder(architecture: str) -> "Encoder | None":
    """torchvision's ImageNet weights if torch's cache has them; nothing is ever downloaded here."""
    import torch
    from torchvision.models import get_model_weights

    from pretrain.encoder import make_encoder

    url = get_model_weights(architecture).DEFAULT.url
    if not (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]).is_file():
        return None
    return make_encoder(architecture, "imagenet").eval()


def _opened(paths: Sequence[str]) -> tuple[list[Pretrained], list[str]]:
    """Those that can be read; a warning for each that cannot. Raises UserError where none can."""
    opened, warnings = [], []
    for path in map(Path, paths):
        try:
            opened.append(_open(path))
        except UserError as error:
            warnings.append(f"an encoder is left out: {error}")
    if not opened:
        raise UserError(" ".join(warning.removeprefix("an encoder is left out: ") for warning in warnings))
    return opened, warnings


def _open(path: Path) -> Pretrained:
    from pretrain.encoder import fingerprint, load_encoder

    encoder = load_encoder(path)
    return Pretrained(path, encoder, fingerprint(encoder))


def _newest(folder: Path, categories: Sequence[str], allow_seen: bool) -> dict[str, list[Pretrained]]:
    """The newest finished encoder of the same data set that saw none of the categories; if there is none, for each
    category the newest that did not see it."""
    saw = {}
    for finished in sorted(RUNS.rglob("finished"), key=lambda file: file.stat().st_mtime, reverse=True):
        path = finished.with_name("encoder.safetensors")
        seen = _categories_seen(path, folder)
        if seen is not None:
            saw[path] = seen
    for_all = [path for path, seen in saw.items() if allow_seen or not seen & set(categories)]
    chosen = {}
    for category in categories:
        fitting = for_all or [path for path, seen in saw.items() if category not in seen]
        if not fitting:
            missing = [name for name in categories if all(name in seen for seen in saw.values())]
            raise UserError(
                f"there is no finished encoder in {RUNS}/ that was pretrained on this data set without "
                f"{', '.join(missing)}; this makes one: {_command(folder, categories)} (or name files with --encoder, "
                f"or give --encoder {NO_ENCODER} for what needs no pretraining)."
            )
        chosen[category] = fitting[0]
    opened = {path: _open(path) for path in set(chosen.values())}
    return {category: [opened[path]] for category, path in chosen.items()}


def _categories_seen(path: Path, folder: Path) -> set[str] | None:
    """What the encoder in a file saw; none where it was made on other data, or cannot be read."""
    from safetensors import SafetensorError, safe_open

    from pretrain.demo import is_demo

    try:
        with safe_open(path, framework="pt") as file:  # the header alone
            origin = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}")).get("origin") or {}
    except (SafetensorError, OSError, ValueError):
        return None
    is_same = str(origin.get("data")).split(", then ")[-1] == folder.resolve().name
    if not is_same or origin.get("is_demo") != is_demo(folder):
        return None
    return set(origin["categories"])


def _command(folder: Path, categories: Sequence[str]) -> str:
    name = "-".join(categories)
    return f"python pretrain/simclr.py --data {folder} --hold-out {','.join(categories)} --out {RUNS}/without-{name}"
