"""Which share of the true neighbors an approximate index finds, and how wide it has to search for that."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embeddings.index.exact import exact_distances, exact_neighbors
from embeddings.index.kinds import IndexSpec, max_breadth

TRIALS, RECALL_AT = 500, 10


class Recall(NamedTuple):
    """Recall `at` that many neighbors, measured with `queries` vectors when the index was built, beside the `target` it
    was built for; and milliseconds per query in a batch of these, of the index and of exact search."""

    value: float
    target: float
    at: int
    queries: int
    ms: float
    exact_ms: float


class Trial:
    """Queries with their exact neighbors among all rows of an index, to compare with what it finds.

    `search` gives the rows (q, k) that the index finds for queries, k and a breadth; `take` the vectors (n, d) of given
    rows as the index has them; `count` is how many rows there are. Without `queries` (q, d), rows drawn at random are
    the queries; that each of these finds itself does not count.
    """

    def __init__(
        self,
        spec: IndexSpec,
        search: Callable[[np.ndarray, int, int], np.ndarray],
        take: Callable[[np.ndarray], np.ndarray],
        count: int,
        queries: np.ndarray | None = None,
    ) -> None:
        self._spec, self._searched, self._take, self._count, self._own = spec, search, take, count, None
        if queries is None:
            generator = np.random.default_rng(spec.seed)
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

    def recall(self, breadth: int, target: float) -> Recall:
        """Recall and time of searches of this breadth."""
        start_s = time.perf_counter()
        rows = self._search(breadth)
        ms = 1e3 * (time.perf_counter() - start_s) / len(self._queries)
        return Recall(self._value(rows)[0], target, self._at, len(self._queries), ms, self._exact_ms)

    def least_breadth(self, target: float) -> int:
        """The smallest breadth whose recall is above `target` by two standard errors, to within an eighth; where none
        is, the one beyond which nothing more is found."""
        widest, breadth, before = max_breadth(self._spec, self._count), 1, -1.0
        while True:  # double it until the recall is reached ...
            recall, error = self._value(self._search(breadth))
            if recall - 2 * error >= target or breadth == widest:
                break
            if breadth >= 64 and recall - before < 1e-4:  # what is missing is lost in the codes, not in the lists
                return breadth // 2
            breadth, before = min(2 * breadth, widest), recall
        low, high = breadth // 2, breadth  # ... and bisect: low is known to be too small
        while high - low > max(1, low // 8):
            middle = (low + high) // 2
            recall, error = self._value(self._search(middle))
            low, high = (low, middle) if recall - 2 * error >= target else (middle, high)
        return high

    def _search(self, breadth: int) -> np.ndarray:
        """Rows (q, k) that the index finds."""
        return self._searched(self._queries, self._asked, breadth)

    def _value(self, rows: np.ndarray) -> tuple[float, float]:
        """Recall of rows (q, k), and its standard error over queries. Rows count by distance: of equally near vectors
        any will do."""
        squared = np.concatenate([
            exact_distances(query[None], self._take(of_query), np.arange(len(of_query))[None])
            for query, of_query in zip(self._queries, rows, strict=True)
        ])  # fmt: skip
        if self._own is not None:
            squared[rows == self._own[:, None]] = np.inf
        squared = np.sort(squared, axis=1)[:, : self._at]
        reach = self._exact[:, -1:] * (1 + 1e-5) + 1e-12
        by_query = (squared <= reach).mean(axis=1)
        return float(by_query.mean()), float(by_query.std() / np.sqrt(len(by_query)))
