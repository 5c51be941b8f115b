"""What an approximate index finds of what exact search finds, and how hard it has to look for that."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embeddings.index.engine import Engine
from embeddings.index.exact import exact_distances, exact_neighbors
from embeddings.index.kinds import most_effort

TRIALS, RECALL_AT = 500, 10


class Recall(NamedTuple):
    """Recall `at` so many neighbors, measured on `queries` vectors when the index was built; the `target` it was built
    for; milliseconds a query in a batch of these, its own and exact search's."""

    value: float
    target: float
    at: int
    queries: int
    ms: float
    exact_ms: float


class Trial:
    """Queries with their exact neighbors among all rows of an engine, to compare with what it finds.

    `take` gives the vectors (n, d) of some rows as the engine knows them, `count` is how many there are. Without
    `queries` (q, d), some of the rows are asked, each of which finds itself: that does not count.
    """

    def __init__(
        self, engine: Engine, take: Callable[[np.ndarray], np.ndarray], count: int, queries: np.ndarray | None = None
    ) -> None:
        self._engine, self._take, self._count, self._own = engine, take, count, None
        if queries is None:
            generator = np.random.default_rng(engine.shape.seed)
            self._own = np.sort(generator.choice(count, min(TRIALS, count), replace=False))
            queries = take(self._own)
        self._queries, self._at = queries, min(RECALL_AT, count - 1)
        start_s = time.perf_counter()
        exact = exact_neighbors(queries, lambda start, end: take(np.arange(start, end)), count, self._asked)
        self._exact_ms = 1e3 * (time.perf_counter() - start_s) / len(queries)
        self._exact = exact[:, self._asked - self._at :]  # itself stands first

    @property
    def _asked(self) -> int:
        return self._at + (self._own is not None)

    def recall(self, effort: int, target: float) -> Recall:
        """Recall and time at an effort."""
        start_s = time.perf_counter()
        rows = self._search(effort)
        ms = 1e3 * (time.perf_counter() - start_s) / len(self._queries)
        return Recall(self._value(rows)[0], target, self._at, len(self._queries), ms, self._exact_ms)

    def least_effort(self, target: float) -> int:
        """The least effort whose recall is above `target` by two standard errors, within an eighth; where none is, the
        one beyond which nothing more is found."""
        most, effort, before = most_effort(self._engine.shape, self._count), 1, -1.0
        while True:
            recall, error = self._value(self._search(effort))
            if recall - 2 * error >= target or effort == most:
                break
            if effort >= 64 and recall - before < 1e-4:  # lost in the codes, not in the lists
                return effort // 2
            effort, before = min(2 * effort, most), recall
        low, high = effort // 2, effort  # low is known to be too little
        while high - low > max(1, low // 8):
            middle = (low + high) // 2
            recall, error = self._value(self._search(middle))
            low, high = (low, middle) if recall - 2 * error >= target else (middle, high)
        return high

    def _search(self, effort: int) -> np.ndarray:
        """Rows (q, k) that are found."""
        return self._engine.search(self._queries, self._asked, effort)[1]

    def _value(self, rows: np.ndarray) -> tuple[float, float]:
        """Recall of found rows (q, k), and its standard error over queries. By distance, not by row: of equally near
        vectors each will do."""
        squared = np.concatenate([
            exact_distances(query[None], self._take(found), np.arange(len(found))[None])
            for query, found in zip(self._queries, rows, strict=True)
        ])  # fmt: skip
        if self._own is not None:
            squared[rows == self._own[:, None]] = np.inf
        squared = np.sort(squared, axis=1)[:, : self._at]
        reach = self._exact[:, -1:] * (1 + 1e-5) + 1e-12
        by_query = (squared <= reach).mean(axis=1)
        return float(by_query.mean()), float(by_query.std() / np.sqrt(len(by_query)))
