"""Both databases, the same behaviour; what was added is there after a kill."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY
from serving import postgres

from downstream.service.database import Filter, Kept, Result, Store, url_of
from pretrain.command import UserError


def result(number: int = 0, **changes: object) -> Result:
    usual = Result(
        f"2026-01-{number % 28 + 1:02d}T10:00:00.000Z", "bolt", "bolts", f"image {number}.png", f"{number:064x}",
        64, 48, 0.1 + number, 2.5, number > 2, 0.9,
        [{"area_px": 3, "box": [0, 1, 2, 3], "peak": 1.5, "center": [1, 1]}], 12.5,
    )  # fmt: skip
    return usual._replace(**changes)


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory):
    with postgres(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "new" / "results.sqlite")
    url = request.getfixturevalue("postgres_url")
    store = Store(url)
    with store._engine.begin() as connection:
        for table in ("results", "images", "settings"):
            connection.exec_driver_sql(f"TRUNCATE {table} RESTART IDENTITY")
    store.close()
    return url


@pytest.fixture
def store(place):
    store = Store(place)
    yield store
    store.close()


def test_results_come_back_as_they_were_the_newest_first(store):
    odd = result(1, name="é — 漢字 'quoted\" %_\\.png", score=1e-300, threshold=-3.4e38, regions=[])
    assert store.add([result(0), odd]) == [1, 2]
    assert store.add([result(3)]) == [3]
    assert store.results(Filter(), 10) == [result(3, id=3), odd._replace(id=2), result(0, id=1)]


def test_pages_join_without_a_gap_while_more_comes(store):
    store.add([result(number) for number in range(10)])
    first = store.results(Filter(), 4)
    store.add([result(99)])
    second = store.results(Filter(), 4, first[-1].id)
    assert [one.id for one in first + second] == [10, 9, 8, 7, 6, 5, 4, 3]
    assert [one.id for one in store.every(Filter())] == list(range(11, 0, -1))


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(), {0, 1, 2, 3, 4}),
        (Filter(model="bolt"), {0, 1, 2, 3}),
        (Filter(model="Bolt"), set()),
        (Filter(is_defective=True), {3, 4}),
        (Filter(is_defective=False), {0, 1, 2}),
        (Filter(name="IMAGE 1"), {1}),
        (Filter(name="%"), set()),
        (Filter(digest=f"{2:064x}"), {2}),
        (Filter(since="2026-01-03T10:00:00.000Z"), {2, 3, 4}),
        (Filter(until="2026-01-03T10:00:00.000Z"), {0, 1}),
        (Filter(least_score=1.1, most_score=3.2), {1, 2, 3}),
        (Filter(model="bolt", is_defective=True, name="' OR 1=1 --"), set()),
    ],
)
def test_filters(store, wanted, numbers):
    store.add([result(number, model="nut" if number == 4 else "bolt") for number in range(5)])
    found = store.results(wanted, 100)
    assert {int(one.digest, 16) for one in found} == numbers
    assert store.count(wanted) == len(numbers)


def test_settings_are_seen_by_others_and_stay(place):
    first, second = Store(place), Store(place)
    assert first.settings() == {"format": "1"}
    first.set("model", "bolt")
    assert second.settings()["model"] == "bolt"
    second.set("model", "nut")
    second.set("threshold nut", "1.5")
    first.set("threshold nut", None)
    first.close()
    second.close()
    again = Store(place)
    assert again.settings() == {"format": "1", "model": "nut"}
    again.close()


def test_kept_images_are_known_by_their_content(store):
    image = Kept("a" * 64, "a.png", "encoder 1", b"\0\1\2")
    store.add_image(image)
    store.add_image(image._replace(file="other.png"))
    store.add_image(Kept("b" * 64, "b.png", "encoder 2", b"\3"))
    assert store.image("a" * 64) == image._replace(id=store.image("a" * 64).id)
    assert store.image("c" * 64) is None
    (one,) = store.images_after(0, "encoder 1")
    assert one.file == "a.png" and store.images_after(one.id, "encoder 1") == []


def test_many_threads_and_connections_lose_nothing(place):
    stores = [Store(place), Store(place)]
    threads = [
        threading.Thread(target=lambda store=store, number=number: [store.add([result(number)]) for _ in range(20)])
        for number, store in enumerate(stores * 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].count(Filter()) == 120
    assert len({one.id for one in stores[1].every(Filter())}) == 120
    for store in stores:
        store.close()


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from test_database import result
from downstream.service.database import Store
store = Store(sys.argv[1])
for number in range(1000):
    print(*store.add([result(number)]), flush=True)
    if number == 20:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_added_survives_a_kill(place):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(Path(__file__).parent), str(REPOSITORY / "tests")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    answered = list(map(int, done.stdout.split()))
    assert len(answered) == 21
    store = Store(place)
    assert [one.id for one in store.every(Filter())] == answered[::-1]
    store.close()


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path):
    store = Store(str(tmp_path / "results.sqlite"))
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("mysql://x@y/z", "results cannot be kept in mysql"),
        ("no kind://x", "give a file, or postgresql"),
        ("postgresql://x@127.0.0.1:1/z", "is it there, and yours"),
        ("FILE", "cannot be kept in"),
    ],
)
def test_a_place_that_is_none_is_a_mistake(place, words, tmp_path):
    (tmp_path / "text.sqlite").write_text("this is text, and long enough not to be taken for an empty database\n" * 20)
    with pytest.raises(UserError, match=words):
        Store(str(tmp_path / "text.sqlite") if place == "FILE" else place)


def test_a_newer_database_is_a_mistake(place):
    store = Store(place)
    store.set("format", "99")
    store.close()
    with pytest.raises(UserError, match="newer heldout"):
        Store(place)


def test_a_password_is_never_shown():
    url = url_of("postgresql://me@127.0.0.1/name", "secret word")
    assert url.password == "secret word" and "secret" not in str(url)
    with pytest.raises(UserError) as error:
        Store("postgresql://me:secret@127.0.0.1:1/name")
    assert "secret" not in str(error.value)
