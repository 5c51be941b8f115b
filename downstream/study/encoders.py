"""Which encoder files may be tested on which categories: never on one that they saw, never demo ones on other data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pretrain.command import UserError
from pretrain.demo import is_demo
from pretrain.encoder import Encoder, fingerprint, load_encoder, make_encoder
from pretrain.files import HEADER_KEY
from pretrain.reading import parse_json
from pretrain.weights import IMAGENET, Origin

RUNS = Path("runs")
# What `--encoder` is given where no pretrained encoder is wanted.
WITHOUT = "none"


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder file, opened."""

    path: Path
    encoder: Encoder
    fingerprint: str

    @property
    def origin(self) -> Origin | None:
        return self.encoder.origin

    @property
    def saw(self) -> tuple[str, ...]:
        """The categories that it was pretrained on."""
        return self.origin.categories if self.origin else ()


def choose_encoders(
    asked: Sequence[str], folder: Path, categories: Sequence[str], allow_seen: bool = False
) -> tuple[dict[str, list[PretrainedEncoder]], list[str]]:
    """For each test category the encoders that it may be tested with, and warnings. `asked` are files, or `none`;
    without any, the newest finished one of the same data set, or none with a warning that says how to make it.

    Raises UserError where every encoder given saw a category.
    """
    if tuple(asked) == (WITHOUT,):
        return {category: [] for category in categories}, []
    if not asked:
        return _newest(folder, categories, allow_seen)
    files, warnings = _readable(asked)
    if not is_demo(folder) and (demo := [file for file in files if file.origin and file.origin.is_demo]):
        raise UserError(
            f"{demo[0].path} was pretrained on demo data and says nothing of real products: pretrain one on {folder} "
            f"({_pretraining_command(folder, categories)})."
        )
    chosen = {}
    for category in categories:
        chosen[category] = [file for file in files if allow_seen or category not in file.saw]
        if not chosen[category]:
            raise UserError(
                f"every encoder given saw {category}, so figures there would say nothing of unseen products: leave it "
                f"out of --test, add --allow-seen to say so aloud, or make an encoder that did not see it: "
                f"{_pretraining_command(folder, [category])}"
            )
        if seeing := [str(file.path) for file in chosen[category] if category in file.saw]:
            warnings.append(f"{category} was seen in pretraining by {', '.join(seeing)} (--allow-seen)")
    return chosen, warnings


def opened_encoders(paths: Mapping[str, Sequence[Path]]) -> dict[str, list[PretrainedEncoder]]:
    """Those that were chosen before, by test category. Raises UserError where one is not at its path."""
    opened = {path: _open(path) for of_category in paths.values() for path in of_category}
    return {category: [opened[path] for path in of_category] for category, of_category in paths.items()}


def imagenet_encoder(architecture: str) -> Encoder | None:
    """The start: ImageNet's weights if they are on this machine; nothing is ever downloaded here."""
    try:
        return make_encoder(architecture, IMAGENET).eval()
    except UserError:
        return None


def _readable(paths: Sequence[str]) -> tuple[list[PretrainedEncoder], list[str]]:
    """Those that can be read; a warning for each that cannot. Raises UserError where none can."""
    files, reasons = [], []
    for path in map(Path, paths):
        try:
            files.append(_open(path))
        except UserError as error:
            reasons.append(str(error))
    if not files:
        raise UserError(" ".join(reasons))
    return files, [f"an encoder is left out: {reason}" for reason in reasons]


def _open(path: Path) -> PretrainedEncoder:
    encoder = load_encoder(path)
    return PretrainedEncoder(path, encoder, fingerprint(encoder))


def _newest(
    folder: Path, categories: Sequence[str], allow_seen: bool
) -> tuple[dict[str, list[PretrainedEncoder]], list[str]]:
    """The newest finished encoder of the same data set that saw none of the categories; if there is none, for each
    category the newest that did not see it; none at all, and a warning, where a category is left without."""
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
            return {category: [] for category in categories}, [
                f"nothing is said of SimCLR: {RUNS}/ has no finished encoder that was pretrained on this data set "
                f"without {', '.join(missing)}; {_pretraining_command(folder, categories)} makes one"
            ]
        chosen[category] = fitting[0]
    opened = {path: _open(path) for path in dict.fromkeys(chosen.values())}
    reasons = ((path, file.origin.why_not_better) for path, file in opened.items() if file.origin)
    warnings = [f"{path}, the newest, {reason}" for path, reason in reasons if reason]
    return {category: [opened[path]] for category, path in chosen.items()}, warnings


def _categories_seen(path: Path, folder: Path) -> set[str] | None:
    """The categories in an encoder file's header; none where it was made on other data, or cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:  # the header alone
            origin = parse_json((file.metadata() or {}).get(HEADER_KEY, "{}")).get("origin") or {}
        categories = set(origin["categories"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError):
        return None
    is_same = str(origin.get("data")).split(", then ")[-1] == folder.resolve().name
    if not is_same or origin.get("is_demo") != is_demo(folder):
        return None
    return categories


def _pretraining_command(folder: Path, categories: Sequence[str]) -> str:
    name = "-".join(categories)
    return f"python pretrain/simclr.py --data {folder} --hold-out {','.join(categories)} --out {RUNS}/without-{name}"
