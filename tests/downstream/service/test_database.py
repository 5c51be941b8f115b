"""Both databases, the same behaviour; what was added is there after a kill."""

import signal
import subprocess
import sys
import threading

import pytest
from conftest import REPOSITORY
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from stored_results import result

from downstream.service.database import (
    Database,
    ResultFilter,
    StoredImage,
    is_damaged,
    is_full,
    url_of,
)
from pretrain.command import UserError


@pytest.fixture
def database(location):
    database = Database(location)
    yield database
    database.close()


def test_results_come_back_as_they_were_the_newest_first(database):
    odd = result(1, name="é — 漢字 'quoted\" %_\\.png", score=1e-300, threshold=-3.4e38, regions=[])
    assert database.add_results([result(0), odd]) == [1, 2]
    assert database.add_results([result(3)]) == [3]
    assert database.results(ResultFilter(), 10) == [result(3, id=3), odd._replace(id=2), result(0, id=1)]


def test_pages_join_without_a_gap_while_more_comes(database):
    database.add_results([result(number) for number in range(10)])
    first = database.results(ResultFilter(), 4)
    database.add_results([result(99)])
    second = database.results(ResultFilter(), 4, first[-1].id)
    assert [one.id for one in first + second] == [10, 9, 8, 7, 6, 5, 4, 3]
    assert [one.id for one in database.all_results(ResultFilter())] == list(range(11, 0, -1))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (ResultFilter(), {0, 1, 2, 3, 4}),
        (ResultFilter(model="bolt"), {0, 1, 2, 3}),
        (ResultFilter(model="Bolt"), set()),
        (ResultFilter(is_defective=True), {3, 4}),
        (ResultFilter(is_defective=False), {0, 1, 2}),
        (ResultFilter(name="IMAGE 1"), {1}),
        (ResultFilter(name="%"), set()),
        (ResultFilter(digest=f"{2:064x}"), {2}),
        (ResultFilter(since="2026-01-03T10:00:00.000Z"), {2, 3, 4}),
        (ResultFilter(until="2026-01-03T10:00:00.000Z"), {0, 1}),
        (ResultFilter(min_score=1.1, max_score=3.2), {1, 2, 3}),
        (ResultFilter(model="bolt", is_defective=True, name="' OR 1=1 --"), set()),
    ],
)
def test_filters(database, wanted, numbers):
    database.add_results([result(number, model="nut" if number == 4 else "bolt") for number in range(5)])
    found = database.results(wanted, 100)
    assert {int(one.digest, 16) for one in found} == numbers
    assert database.count(wanted) == len(numbers)


def test_settings_are_seen_by_others_and_stay(location):
    first, second = Database(location), Database(location)
    assert first.settings() == {"format": "3"}
    first.set("model", "bolt")
    assert second.settings()["model"] == "bolt"
    second.set("model", "nut")
    second.set("threshold nut", "1.5")
    first.set("threshold nut", None)
    first.close()
    second.close()
    again = Database(location)
    assert again.settings() == {"format": "3", "model": "nut"}
    again.close()


def test_kept_images_are_known_by_their_content(database):
    image = StoredImage("a" * 64, "a.png", "encoder 1", b"\0\1\2")
    database.add_image(image)
    database.add_image(image._replace(file="other.png"))
    database.add_image(StoredImage("b" * 64, "b.png", "encoder 2", b"\3"))
    assert database.image("a" * 64) == image._replace(id=database.image("a" * 64).id)
    assert database.image("c" * 64) is None
    (one,) = database.images_after(0, "encoder 1")
    assert one.file == "a.png" and database.images_after(one.id, "encoder 1") == []


def test_many_threads_and_connections_lose_nothing(location):
    databases = [Database(location), Database(location)]
    threads = [
        threading.Thread(target=lambda db=db, number=number: [db.add_results([result(number)]) for _ in range(20)])
        for number, db in enumerate(databases * 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert databases[0].count(ResultFilter()) == 120
    assert len({one.id for one in databases[1].all_results(ResultFilter())}) == 120
    for database in databases:
        database.close()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from stored_results import result
from downstream.service.database import Database
database = Database(sys.argv[1])
for number in range(1000):
    print(*database.add_results([result(number)]), flush=True)
    if number == 20:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_added_survives_a_kill(location):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, location, str(REPOSITORY / "tests")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    answered = list(map(int, done.stdout.split()))
    assert len(answered) == 21
    database = Database(location)
    assert [one.id for one in database.all_results(ResultFilter())] == answered[::-1]
    database.close()


def test_a_full_disk_is_told_from_other_faults(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    (pages,) = database.rows(text("PRAGMA page_count"))
    event.listen(database._engine, "checkout", lambda connection, *_: connection.execute(
        f"PRAGMA max_page_count={pages['page_count'] + 2}"))  # fmt: skip
    with pytest.raises(DBAPIError) as full:
        for number in range(1000):
            database.add_results([result(number)])
    assert is_full(full.value) and 0 < database.count(ResultFilter()) == number
    with pytest.raises(DBAPIError) as other:
        database.rows(text("SELECT nothing"))
    assert not is_full(other.value) and not is_damaged(other.value)
    database.close()


def test_a_damaged_file_is_told_from_other_faults(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    database.add_results([result(number) for number in range(500)])
    database.close()
    with open(tmp_path / "results.sqlite", "r+b") as file:
        length = file.seek(0, 2)
        for at in range(length // 8192 * 4096, length, 4096):
            file.seek(at)
            file.write(b"\xff" * 64)
    database = Database(str(tmp_path / "results.sqlite"), is_read_only=True)
    with pytest.raises(DBAPIError) as damaged:
        list(database.all_results(ResultFilter()))
    assert is_damaged(damaged.value)
    database.close()


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    with database._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    database.close()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("mysql://x@y/z", "results cannot be kept in mysql"),
        ("no kind://x", "give a file, or postgresql"),
        ("postgresql://x@127.0.0.1:1/z", "is it there, and yours"),
        ("FILE", "cannot be kept in"),
    ],
)
def test_a_place_that_is_none_is_a_mistake(location, words, tmp_path):
    (tmp_path / "text.sqlite").write_text("this is text, and long enough not to be taken for an empty database\n" * 20)
    with pytest.raises(UserError, match=words):
        Database(str(tmp_path / "text.sqlite") if location == "FILE" else location)


def test_a_password_is_never_shown():
    url = url_of("postgresql://me@127.0.0.1/name", "secret word")
    assert url.password == "secret word" and "secret" not in str(url)
    with pytest.raises(UserError) as error:
        Database("postgresql://me:secret@127.0.0.1:1/name")
    assert "secret" not in str(error.value)
