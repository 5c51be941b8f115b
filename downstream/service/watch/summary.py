"""How a model does: drift of accepted images and their scores, and how often people found it wrong."""

from typing import NamedTuple

from sqlalchemy import Column

from downstream.service.database import Database, ResultFilter
from downstream.service.feedback.records import FeedbackRecords
from downstream.service.tables import RESULTS
from downstream.service.watch.drift import (
    KS_FALSE_ALARM_RATE,
    KS_WINDOW,
    Cusum,
    Ks,
    cusum,
    cusum_limit,
    kolmogorov_smirnov,
    normal_ranks,
)
from downstream.service.watch.rates import Rate, error_rates

# The first ones that a version accepts are what later ones are compared with.
SCORE_REFERENCES = 200
# Later ones that are looked at: an alarm of long ago says nothing of now.
SCORES = 2000


class Drift(NamedTuple):
    """Of `count` accepted images after the `references`; `ks` is of the latest full window, if there is one."""

    references: int
    count: int
    ks: Ks | None
    cusum: Cusum | None

    @property
    def has_drifted(self) -> bool:
        """Now: by the latest window, or by an alarm of the CUSUM within as many images."""
        by_window = self.ks is not None and self.ks.p_value < KS_FALSE_ALARM_RATE
        by_sum = self.cusum is not None and any(at >= self.count - KS_WINDOW for at in self.cusum.alarms)
        return by_window or by_sum


def drift_of(figures: list[float]) -> Drift:
    """Of a figure of accepted images, the oldest first."""
    references, later = figures[:SCORE_REFERENCES], figures[SCORE_REFERENCES:]
    if len(references) < SCORE_REFERENCES or not later:
        return Drift(len(references), len(later), None, None)
    windows = len(later) // KS_WINDOW
    # Windows do not overlap: then each one's rate is its own.
    window = later[(windows - 1) * KS_WINDOW : windows * KS_WINDOW] if windows else []
    ks = kolmogorov_smirnov(references, window) if window else None
    return Drift(len(references), len(later), ks, cusum(normal_ranks(later, references), cusum_limit()))


class Drifts(NamedTuple):
    """Of the scores of accepted images, and of the distances of those images as a whole to the nearest good one."""

    scores: Drift
    images: Drift


def drifts_of(database: Database, model: str, version: str, threshold: float) -> Drifts:
    """Of a version's images that a threshold accepts."""
    columns = (RESULTS.c.score, RESULTS.c.distance)
    return Drifts(*(drift_of(accepted(database, column, model, version, threshold)) for column in columns))


def accepted(database: Database, column: Column, model: str, version: str, threshold: float) -> list[float]:
    """A figure of a version's images that the threshold in force accepts, whichever one was when they were judged, and
    with whose camera nothing was wrong: the first ones, and the latest, which begin where a window begins, so that
    each image is in one window only. By the verdicts themselves, a changed threshold would look like drift."""
    wanted = ResultFilter(model=model, max_score=threshold, model_version=version, camera="")
    first = database.figures(column, wanted, SCORE_REFERENCES)
    if len(first) < SCORE_REFERENCES:
        return first
    later = database.count_figures(column, wanted) - SCORE_REFERENCES
    latest = database.figures(column, wanted, min(later, SCORES + later % KS_WINDOW), is_newest=True) if later else []
    return [*first, *reversed(latest)]


def rates_of(database: Database, model: str) -> tuple[Rate, Rate]:
    """False alarms and misses of a model, by what stands for each image."""
    counts = FeedbackRecords(database).verdict_counts(model)
    return error_rates(said for said, count in counts.items() for _ in range(count))
