"""What each product did today and before, against counts by hand."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from stored_results import result

from downstream.service.audit.log import add_change
from downstream.service.database import Database
from downstream.service.feedback.records import Feedback, FeedbackRecords
from downstream.service.products import DAYS, products_of

TODAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def database(location):
    database = Database(location)
    yield database
    database.close()


def test_days_are_counted_by_model_and_begin_where_they_are_asked(database):
    moments = ["2026-03-02T00:00:00.000Z", "2026-03-02T23:59:59.999Z", "2026-03-03T00:00:00.000Z",
               "2026-03-01T23:59:59.999Z", "2026-02-17T00:00:00.000Z", "2026-02-16T23:59:59.999Z"]  # fmt: skip
    database.add_results([result(0, created=one, is_defective=n % 2 == 0) for n, one in enumerate(moments)])
    database.add_results([result(0, created=moments[0], model="nut")])
    bolt, nut, pin = products_of(database, ["bolt", "nut", "pin"], TODAY)
    assert [len(one.days) for one in (bolt, nut, pin)] == [DAYS] * 3
    # The sixth lies before the first day, the third after today.
    assert {day.begins[:10]: (day.images, day.defective) for day in bolt.days if day.images} == {
        "2026-03-02": (2, 1), "2026-03-01": (1, 0), "2026-02-17": (1, 1)}  # fmt: skip
    assert nut.days[-1] == ("2026-03-02T00:00:00.000Z", 1, 0) and not any(day.images for day in nut.days[:-1])
    assert (bolt.last_image, pin.last_image) == (moments[5], None)
    # Two hours east of Greenwich a day is over two hours earlier.
    (east,) = products_of(database, ["bolt"], TODAY.replace(tzinfo=timezone(timedelta(hours=2))))
    assert [(day.begins, day.images) for day in east.days[-2:]] == [
        ("2026-02-28T22:00:00.000Z", 0), ("2026-03-01T22:00:00.000Z", 2)]  # fmt: skip


def test_the_last_change_is_that_of_the_log_and_no_feedback(database):
    with database.alone() as connection:
        for subject, action in (("bolt", "model version"), ("bolt", "threshold"), ("nut", "model version")):
            add_change(connection, "ada", action, subject, None, 1)
    database.add_results([result(0)])
    FeedbackRecords(database).add(Feedback(1, "agree", "2026", "ada"))
    bolt, pin = products_of(database, ["bolt", "pin"], TODAY)
    assert bolt.last_change.action == "threshold" and pin.last_change is None
