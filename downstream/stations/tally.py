"""What a station has done of late: counts, latency and the steps that it went into, rate."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

KEPT_LATENCIES = 2_000
# Of a part's way, each from the end of the one before.
STEPS = ("waiting", "decoding", "judging", "writing")
RATE_WINDOW_S = 60.0


class Tally:
    """Since the line started; latencies of the last parts, from a part's beginning to its signal on disk."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._latencies: deque[tuple[float, float]] = deque(maxlen=KEPT_LATENCIES)  # when, ms
        self._steps: deque[Sequence[float]] = deque(maxlen=KEPT_LATENCIES)  # ms, of parts that went all the way
        self._lock, self._start_s = threading.Lock(), time.monotonic()

    def add(self, verdict: str, latency_ms: float, steps_ms: Sequence[float] = ()) -> None:
        """`steps_ms` in the order of STEPS."""
        with self._lock:
            self.counts[verdict] += 1
            self._latencies.append((time.monotonic(), latency_ms))
            if len(steps_ms) == len(STEPS):
                self._steps.append(steps_ms)

    def latency_ms(self, share: float) -> float | None:
        """So long at most took that share of the last parts."""
        with self._lock:
            ordered = sorted(ms for _, ms in self._latencies)
        return _at(ordered, share) if ordered else None

    def steps_ms(self, share: float) -> Mapping[str, float]:
        """The same of each step by itself."""
        with self._lock:
            steps = list(self._steps)
        return {name: _at(sorted(each), share) for name, each in zip(STEPS, zip(*steps, strict=True), strict=False)}

    def rate_per_s(self) -> float:
        """Parts a second over the last minute, or over those that are remembered."""
        now_s = time.monotonic()
        with self._lock:
            recent = [at_s for at_s, _ in self._latencies if now_s - at_s <= RATE_WINDOW_S]
            is_cut = len(self._latencies) == KEPT_LATENCIES and len(recent) == KEPT_LATENCIES
        if not recent:
            return 0.0
        since_s = recent[0] if is_cut else max(self._start_s, now_s - RATE_WINDOW_S)
        return round(len(recent) / max(1e-3, now_s - since_s), 3)


def _at(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
