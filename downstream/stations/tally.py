"""What a station has done of late: counts, latency, rate."""

import threading
import time
from collections import Counter, deque

KEPT_LATENCIES = 2_000
RATE_WINDOW_S = 60.0


class Tally:
    """Since the line started; latencies of the last parts, from a part's beginning to its signal on disk."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._latencies: deque[tuple[float, float]] = deque(maxlen=KEPT_LATENCIES)  # when, ms
        self._lock, self._start_s = threading.Lock(), time.monotonic()

    def add(self, verdict: str, latency_ms: float) -> None:
        with self._lock:
            self.counts[verdict] += 1
            self._latencies.append((time.monotonic(), latency_ms))

    def latency_ms(self, share: float) -> float | None:
        """So long at most took that share of the last parts."""
        with self._lock:
            ordered = sorted(ms for _, ms in self._latencies)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None

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
