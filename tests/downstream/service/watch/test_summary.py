"""Drift and rates as they are read from the database."""

import numpy as np
import pytest
from stored_results import result

from downstream.service.database import Database
from downstream.service.feedback.records import Feedback, FeedbackRecords
from downstream.service.tables import RESULTS
from downstream.service.watch.drift import KS_WINDOW
from downstream.service.watch.summary import SCORE_REFERENCES, SCORES, accepted, drift_of, drifts_of, rates_of


def test_too_few_scores_say_nothing():
    for count in (0, 1, SCORE_REFERENCES):
        drift = drift_of([1.0] * count)
        assert drift == (min(count, SCORE_REFERENCES), 0, None, None) and not drift.has_drifted
    drift = drift_of([float(i % 7) for i in range(SCORE_REFERENCES + KS_WINDOW - 1)])
    assert drift.ks is None and drift.cusum is not None and not drift.has_drifted


def test_a_jump_is_found_by_the_window_and_a_line_without_one_is_not_called_drifted():
    random = np.random.default_rng(0)
    steady = random.gamma(4, size=SCORE_REFERENCES + 3 * KS_WINDOW)
    assert not drift_of(steady.tolist()).has_drifted
    jumped = [*steady, *(random.gamma(4, size=KS_WINDOW) + 2)]
    drift = drift_of(jumped)
    assert drift.ks.p_value < 1e-6 and drift.cusum.alarms and drift.has_drifted
    # What was mended long ago is not said for ever.
    assert not drift_of([*jumped, *random.gamma(4, size=3 * KS_WINDOW)]).has_drifted


@pytest.mark.slow
def test_lines_without_drift_are_called_drifted_as_rarely_as_stated():
    """What the page says now, over many lines, each with references of its own."""
    random = np.random.default_rng(1)
    called = [drift_of(random.gamma(4, size=SCORE_REFERENCES + 5 * KS_WINDOW).tolist()) for _ in range(600)]
    assert np.mean([drift.has_drifted for drift in called]) < 0.05


@pytest.fixture
def database(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    yield database
    database.close()


def test_scores_are_those_of_accepted_images_of_this_version_in_their_order(database, monkeypatch):
    monkeypatch.setattr("downstream.service.watch.summary.SCORE_REFERENCES", 3)
    monkeypatch.setattr("downstream.service.watch.summary.SCORES", 2)
    monkeypatch.setattr("downstream.service.watch.summary.KS_WINDOW", 2)
    for number in range(8):
        database.add_results([result(0, score=float(number)), result(0, score=0.5, camera="too dark"),
                              result(5, score=50.0), result(0, score=0.5, model_version="other")])  # fmt: skip
    assert accepted(database, RESULTS.c.score, "bolt", "a version", 9.0) == [0, 1, 2, 5, 6, 7]
    assert accepted(database, RESULTS.c.score, "bolt", "a version", 3.0) == [0, 1, 2, 3]
    assert accepted(database, RESULTS.c.score, "bolt", "a version", 1.0) == [0, 1]
    assert accepted(database, RESULTS.c.score, "nut", "a version", 9.0) == []


@pytest.mark.parametrize(("before", "after"), [(9.0, 4.0), (4.0, 9.0)])
def test_a_changed_threshold_is_no_drift_and_hides_none(database, before, after):
    random, count = np.random.default_rng(0), SCORE_REFERENCES + 3 * KS_WINDOW

    def judged(scores: np.ndarray, threshold: float) -> None:
        database.add_results([result(0, score=float(one), threshold=threshold, is_defective=bool(one > threshold))
                              for one in scores])  # fmt: skip

    judged(random.gamma(4, size=count), before)
    judged(random.gamma(4, size=3 * KS_WINDOW), after)
    assert not drift_of(accepted(database, RESULTS.c.score, "bolt", "a version", after)).has_drifted
    judged(random.gamma(4, size=3 * KS_WINDOW) * 0.4, after)
    assert drift_of(accepted(database, RESULTS.c.score, "bolt", "a version", after)).has_drifted


def test_windows_do_not_overlap_however_many_images_came(database):
    count = SCORE_REFERENCES + SCORES + KS_WINDOW // 2
    for first, last in ((0, count), (count, count + KS_WINDOW - 1)):
        database.add_results([result(0, score=float(number)) for number in range(first, last)])
        later = accepted(database, RESULTS.c.score, "bolt", "a version", 1e9)[SCORE_REFERENCES:]
        assert (later[0] - SCORE_REFERENCES) % KS_WINDOW == 0 and later[-1] == last - 1 and len(later) >= SCORES


def test_rates_are_of_what_stands(database):
    database.add_results([result(number) for number in range(6)])  # from 3 on defective
    records = FeedbackRecords(database)
    for result_id, verdict in ((1, "agree"), (2, "missed_defect"), (3, "agree"), (5, "false_alarm"), (6, "unsure")):
        said = records.add(Feedback(result_id, verdict, "2026", "Ada"))
    records.take_back(said, "2026", "Ada")
    alarms, misses = rates_of(database, "bolt")
    assert (alarms.count, alarms.total, misses.count, misses.total) == (1, 3, 1, 1)
    assert rates_of(database, "nut")[0].share is None


def test_what_is_said_of_another_model_changes_no_rate(database):
    database.add_results([result(4), result(4, model="nut")])
    for result_id in (1, 2):
        FeedbackRecords(database).add(Feedback(result_id, "false_alarm", "2026", "Ada"))
    assert rates_of(database, "bolt")[0].count == rates_of(database, "nut")[0].count == 1


def test_images_that_change_as_a_whole_are_found_where_scores_say_nothing(database):
    random, count = np.random.default_rng(0), SCORE_REFERENCES + 3 * KS_WINDOW

    def judged(distances: np.ndarray) -> None:
        scores = random.gamma(4, size=len(distances))
        database.add_results([result(0, score=float(score), distance=float(distance))
                              for score, distance in zip(scores, distances, strict=True)])  # fmt: skip

    database.add_results([result(0, score=1.0) for _ in range(30)])  # of before distances were kept
    judged(random.gamma(4, size=count))
    drifts = drifts_of(database, "bolt", "a version", 1e9)
    assert not drifts.scores.has_drifted and not drifts.images.has_drifted
    assert (drifts.images.count, drifts.scores.count) == (count - SCORE_REFERENCES, count - SCORE_REFERENCES + 30)
    judged(random.gamma(4, size=KS_WINDOW) + 3)
    drifts = drifts_of(database, "bolt", "a version", 1e9)
    assert drifts.images.has_drifted and drifts.images.ks.p_value < 1e-6 and not drifts.scores.has_drifted
    assert drifts_of(database, "nut", "a version", 1e9).images == (0, 0, None, None)
