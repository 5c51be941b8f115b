"""The log in the database: one chain, whoever writes, and nothing of what did not come about."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from downstream.service.audit.log import add_change, all_faults, entries, page_before
from downstream.service.database import Database
from downstream.service.feedback.records import Feedback, FeedbackRecords
from downstream.service.tables import FEEDBACK


@pytest.fixture
def database(location):
    database = Database(location)
    yield database
    database.close()


def change(database: Database, number: int) -> None:
    with database.alone() as connection:
        add_change(connection, "ada", "threshold", "bolt", None, number)


def test_many_writers_make_one_chain(location, database):
    others = [database, Database(location), Database(location)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: change(others[n % 3], n), range(30)))
    chain = list(entries(database))
    assert [entry.number for entry in chain] == list(range(1, 31))
    assert {json.loads(entry.after) for entry in chain} == set(range(30))
    assert list(all_faults(database)) == []
    for other in others[1:]:
        other.close()


def test_what_did_not_come_about_leaves_no_entry(database):
    with pytest.raises(ZeroDivisionError), database.alone() as connection:
        add_change(connection, "ada", "threshold", "bolt", None, 1)
        raise ZeroDivisionError
    assert list(entries(database)) == []


def test_what_changes_nothing_is_no_entry_and_pages_join(database):
    for number in range(5):
        change(database, number)
    with database.alone() as connection:
        add_change(connection, "ada", "threshold", "bolt", 1.5, 1.5)
    first = page_before(database, 3, None)
    assert [entry.number for entry in first] == [5, 4, 3]
    assert [entry.number for entry in page_before(database, 3, first[-1].number)] == [2, 1]


def test_what_is_said_while_the_log_is_read_is_no_fault(database, monkeypatch):
    records, rows = FeedbackRecords(database), database.rows
    said = Feedback(1, "unsure", "2026", "ada")
    records.add(said)

    def interrupted(statement):
        """Somebody speaks right after the records were read."""
        found = rows(statement)
        if FEEDBACK in statement.get_final_froms():
            records.add(said)
        return found

    monkeypatch.setattr(database, "rows", interrupted)
    assert list(all_faults(database)) == []
