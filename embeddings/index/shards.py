"""All shards of an index, asked as if they were one, wherever they lie; each has the ids that are its own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.index.shard import Shard
from pretrain.actors import Held
from pretrain.command import UserError
from pretrain.tasks import Lost


class Shards:
    """So many of them, held here or in actors of Ray. What changes them raises UserError where one does not answer, and
    so does what needs the answers of all; a search goes on without it."""

    def __init__(self, held: Held, count: int) -> None:
        self._held = held
        self.counts, self.removed = [0] * count, [0] * count  # vectors, and rows of removed ones, by shard

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: str) -> None:
        self._held.tell("to", device)

    def ids(self) -> np.ndarray:
        """Of all vectors, in the order they were added, shard by shard."""
        return np.concatenate(list(self._of_all("ids").values()))

    def highest_id(self) -> int:
        return max(self._of_all("highest_id").values())

    def known(self, ids: np.ndarray) -> np.ndarray:
        """Those of these ids, each once, that are in the index, ascending."""
        asked = {number: (ids[here],) for number, here in self._split(ids).items()}
        return np.sort(np.concatenate([ids[:0], *self.whole(self._held.ask("known", asked)).values()]))

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        self._change("add", {number: (vectors[here], ids[here]) for number, here in self._split(ids).items()})

    def remove(self, ids: np.ndarray) -> None:
        self._change("remove", {number: (ids[here],) for number, here in self._split(ids).items()})

    def nearest(
        self, queries: np.ndarray, k: int, breadth: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[int, Lost]]:
        """Squared distances and ids (q, k) in all shards, and those shards that did not answer."""
        asked = {number: (queries, k, breadth) for number in range(len(self))}
        if among is not None:
            asked = {number: (queries, k, breadth, among[here]) for number, here in self._split(among).items()}
        answers = self._held.ask("nearest", asked)
        missing = {number: answer for number, answer in answers.items() if isinstance(answer, Lost)}
        found = [answer for number, answer in answers.items() if number not in missing]
        available = sum(count for _, _, count in found)
        if available < k:
            if not missing:
                raise too_few(k, available, among)
            shape = (len(queries), k - available)
            found.append((np.full(shape, np.inf, np.float32), np.full(shape, -1), 0))
        return *nearest_of_all([each[:2] for each in found], k), missing

    def write(self, folder: Path, generation: str) -> dict[str, dict[str, int]]:
        """Write the files of all, and give of each its size and checksum by name."""
        asked = {number: (folder, generation, number, len(self)) for number in range(len(self))}
        written = self.whole(self._held.ask("write", asked)).values()
        return {name: said for files in written for name, said in files.items()}

    def kept(self, folder: Path, metadata: dict) -> None:
        """What is lost from now on is read from there."""
        self._held.kept(partial(Shard.read, folder, metadata, False))

    def count(self) -> None:
        """Ask all what they hold."""
        self._take_counts(self._of_all("counts"))

    def whole(self, answers: dict[int, Any]) -> dict[int, Any]:
        """Raises UserError unless every shard answered."""
        if missing := {number: answer for number, answer in answers.items() if isinstance(answer, Lost)}:
            raise UserError(f"{'; '.join(self.said(missing))}: load the index again, and repeat what was not saved.")
        return answers

    def said(self, missing: Mapping[int, Lost]) -> tuple[str, ...]:
        """Why each of these did not answer, in words."""
        return tuple(
            f"shard {number + 1} of {len(self)} ({self.counts[number]} of {sum(self.counts)} vectors) {lost.reason}"
            for number, lost in sorted(missing.items())
        )

    def _split(self, ids: np.ndarray) -> dict[int, np.ndarray | slice]:
        """Which of the ids belong to each shard; shards of none are left out."""
        if len(self) == 1:
            return {0: slice(None)}
        owner = shard_of(ids, len(self))
        return {int(number): np.flatnonzero(owner == number) for number in np.unique(owner)}

    def _of_all(self, method: str) -> dict[int, Any]:
        return self.whole(self._held.ask(method, dict.fromkeys(range(len(self)), ())))

    def _change(self, method: str, arguments: dict[int, tuple]) -> None:
        """Change shards, and know how many vectors they hold then."""
        changed = self._held.change(method, arguments)
        left = [number for number, answer in changed.items() if not isinstance(answer, Lost)]
        self._take_counts(self.whole(self._held.ask("counts", dict.fromkeys(left, ()))))
        self.whole(changed)

    def _take_counts(self, counts: Mapping[int, tuple[int, int]]) -> None:
        for number, (count, removed) in counts.items():
            self.counts[number], self.removed[number] = count, removed


def too_few(k: int, available: int, among: np.ndarray | None) -> UserError:
    where = "in the index" if among is None else "left by the filter"
    return UserError(f"{k} neighbors cannot be found among {available} vectors {where}: ask for fewer, at least 1.")


def shard_of(ids: np.ndarray, shards: int) -> np.ndarray:
    """Which shard each id belongs to. Ids are mixed first (Knuth, by 2^64 over the golden ratio), so that all shards
    get alike, whatever pattern the ids have."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(32)) % np.uint64(shards)).astype(np.int64)


def nearest_of_all(found: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of squared distances and ids (q, some) of each shard, the k nearest: as one index would give them."""
    squared, ids = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    order = np.lexsort((ids, squared), axis=1)[:, :k]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(ids, order, 1)
