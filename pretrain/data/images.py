"""Records: what each image of a folder is, what does not fit, and who gets which.

pretrain/data/layouts/ reads them from folders as they are laid out.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain.command import UserError, nearest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
GOOD = "good"
UNLABELED = ""
SPLITS = ("train", "test")
# How a folder may be laid out, as --layout has it; pretrain/data/layouts/ has a reader for each. Of those that find
# equally many categories the first counts: the more one asks for, the sooner it comes.
LayoutName = Literal[
    "visa", "realiad", "ksdd", "ksdd2", "dagm", "mvtec2", "loco", "btad", "mvtec", "mpdd", "table", "plain"
]


@dataclass(frozen=True, kw_only=True)
class LaidOut:
    """What every command can be told that reads a folder of images.

    Attributes:
        layout: How the folder is laid out, where that is not to be found out (docs/data.md lists them).
    """

    layout: LayoutName | None = None


@dataclass(frozen=True)
class Record:
    """One image on disk: `split` is 'train' or 'test', `defect` is 'good' or the name of what is wrong with it; both
    are UNLABELED in a plain folder. `mask` is a file, or a folder of several, all of which show defects."""

    path: Path
    category: str
    split: str
    defect: str
    mask: Path | None = None

    @property
    def is_anomaly(self) -> bool:
        return self.defect not in (GOOD, UNLABELED)


class Problem(NamedTuple):
    """A file that cannot be used as it is, and why; `is_untested` where an image that would be tested is left out."""

    path: Path
    reason: str
    is_untested: bool = True


class Scan(NamedTuple):
    """What a folder holds, in an order that depends on names alone."""

    folder: Path
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]


def check_names(names: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Raise UserError at the first of `names` that is not allowed, with the nearest one that is."""
    for name in names:
        if name not in allowed:
            raise UserError(f"there is no {what} named '{name}'; {nearest(name, allowed)}")


def some_of(count: int, most: int) -> list[int]:
    """At most so many of `count` positions, spread over all: the first, the last, and between them."""
    if count <= most:
        return list(range(count))
    step = (count - 1) / max(1, most - 1)
    return [*(int(number * step) for number in range(most - 1)), count - 1 if most > 1 else 0]


def same_content(keys: Sequence[Hashable]) -> list[list[int]]:
    """Groups of positions that hold equal keys (of images: their content), only groups of two and more."""
    groups = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return [group for group in groups.values() if len(group) > 1]


def split_records(
    records: Sequence[Record],
    digests: Sequence[bytes],
    file_digests: Sequence[bytes],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """Positions of `records` by part, stratified by category and defect; `fractions` sum to 1.

    The split is a function of the files' content and the seed: not of names, order, cache size or decoder. Images
    with equal `digests`, which are the same pixel for pixel, fall into the same part.
    """
    copies = defaultdict(list)
    for position, digest in enumerate(digests):
        copies[digest].append(position)
    # By a keyed hash, not by a generator: an image more or less moves hardly any other into another part. Of copies in
    # several formats the lowest counts, whichever was listed first.
    order = {
        digest: min(blake2b(file_digests[position], key=str(seed).encode()).digest() for position in positions)
        for digest, positions in copies.items()
    }
    strata = defaultdict(list)
    for digest, positions in copies.items():
        # Copies under two labels belong to one stratum, the same in every order of files.
        first = min((records[position] for position in positions), key=lambda record: (record.category, record.defect))
        strata[first.category, first.defect].append(digest)
    parts: dict[str, list[int]] = {part: [] for part in fractions}
    for members in strata.values():
        members.sort(key=lambda digest: order[digest])
        size = sum(len(copies[digest]) for digest in members)
        done = 0
        for digest in members:
            parts[_part_at((done + 0.5) / size, fractions)] += copies[digest]
            done += len(copies[digest])
    return {part: sorted(positions) for part, positions in parts.items()}


def _part_at(share: float, fractions: Mapping[str, float]) -> str:
    """Which part an image belongs to that comes after the given share, 0 to 1, of its like."""
    end = 0.0
    for part, fraction in fractions.items():
        end += fraction
        if share < end:
            return part
    return part
