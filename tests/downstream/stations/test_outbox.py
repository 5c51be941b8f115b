"""Each part ends with exactly one signal, which survives whatever becomes of the process."""

import os
import signal as signals
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_signals import begun, verdict

from downstream.stations import outbox as module
from downstream.stations.outbox import Damaged, Outbox
from pretrain.command import UserError


@pytest.fixture
def outbox(tmp_path):
    opened = Outbox(tmp_path)
    yield opened
    opened.close()


def test_signals_come_in_their_order_to_each_sink(outbox):
    place = outbox.join("all")
    for part in range(1, 6):
        outbox.finish(verdict(part, station="cap" if part % 2 else "lid")).result(5)
    assert [each.signal.part for each in outbox.after(place, ["cap", "lid"])] == [1, 2, 3, 4, 5]
    assert [each.signal.part for each in outbox.after(place, ["lid"])] == [2, 4]
    assert [each.signal.part for each in outbox.after(place, ["cap"], limit=2)] == [1, 3]
    assert outbox.count_after(place, ["cap"]) == 3 and outbox.newest == 5
    assert [each.part for each in outbox.last_signals(2)] == [5, 4]


def test_the_first_signal_of_a_part_is_its_only_one(outbox):
    first = outbox.finish(verdict(1, "fault"))
    second = outbox.finish(verdict(1, "pass"))
    assert first.result(5).verdict == second.result(5).verdict == "fault"
    assert len(outbox.last_signals(9)) == 1 and outbox.signal_of(verdict(1).id).verdict == "fault"


def test_a_verdict_that_comes_to_the_disk_too_late_is_a_fault(outbox):
    now_s = time.monotonic()
    assert outbox.finish(verdict(1), deadline_s=now_s - 0.001).result(5).verdict == "fault"
    assert outbox.finish(verdict(2), deadline_s=now_s + 60).result(5).verdict == "pass"
    assert "not on disk in time" in outbox.signal_of(verdict(1).id).reason


def test_parts_of_a_killed_line_are_faults(tmp_path):
    first = Outbox(tmp_path)
    for part in (1, 2):
        first.begin(begun(part)).result(5)
    first.finish(verdict(1)).result(5)
    first.close()
    second = Outbox(tmp_path)
    place = second.join("new")
    assert second.recover() == 1 and second.recover() == 0
    assert [(each.signal.part, each.signal.verdict) for each in second.after(place, ["cap"])] == [(2, "fault")]
    assert second.last_part("cap") == 2 and second.finish(verdict(2)).result(5).verdict == "fault"
    assert second.number_of(verdict(2).id) == 2 and second.number_of(verdict(3).id) is None
    second.close()


def test_a_sink_goes_on_where_it_was(tmp_path):
    first = Outbox(tmp_path)
    assert first.join("mes") == 0
    for part in (1, 2, 3):
        first.finish(verdict(part)).result(5)
    first.delivered("mes", 2)
    first.close()
    second = Outbox(tmp_path)
    assert second.join("mes") == 2 and second.join("new") == 3
    assert [each.signal.part for each in second.after(2, ["cap"])] == [3]
    second.close()


def test_what_comes_again_is_remembered_until_it_is_gone(outbox):
    outbox.finish(verdict(1), remembered=True).result(5)
    outbox.finish(verdict(2), remembered=True).result(5)
    assert outbox.is_judged(verdict(1).id) and not outbox.is_judged(verdict(3).id)
    outbox.forget("cap", present={verdict(2).id})
    assert [row[0] for row in outbox._rows("SELECT id FROM judged", ())] == [verdict(2).id]


def test_what_every_sink_has_is_pruned_and_nothing_else(outbox, monkeypatch):
    monkeypatch.setattr(module, "KEPT_SIGNALS", 5)
    monkeypatch.setattr(module, "PRUNED_EVERY", 10)
    outbox.join("slow")
    outbox.join("quick")
    outbox.delivered("slow", 12)
    for part in range(1, 41):
        last = outbox.finish(verdict(part))
        outbox.delivered("quick", part)
    last.result(5)
    outbox.finish(verdict(41)).result(5)
    numbers = [number for (number,) in outbox._rows("SELECT number FROM signals ORDER BY number", ())]
    assert numbers[0] == 13 and numbers[-1] == 41


def test_a_refused_signal_is_put_aside(outbox):
    place = outbox.join("mes")
    outbox.finish(verdict(1)).result(5)
    (numbered,) = outbox.after(place, ["cap"])
    outbox.refused("mes", numbered, "it has no such part")
    assert outbox._rows("SELECT sink, reason FROM refused", ()) == [("mes", "it has no such part")]


def test_while_the_disk_cannot_be_written_signals_wait_and_then_go_on(outbox, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    outbox.finish(verdict(1)).result(5)
    blocker = outbox._connected()
    blocker.execute("PRAGMA busy_timeout=0")
    outbox._asked(lambda connection: connection.execute("PRAGMA busy_timeout=1").fetchone()).result(5)
    blocker.execute("BEGIN IMMEDIATE")
    late = outbox.finish(verdict(2), deadline_s=time.monotonic() + 0.1)
    time.sleep(0.2)
    assert not late.done() and "nothing can be written" in outbox.problem
    blocker.execute("ROLLBACK")
    blocker.close()
    assert late.result(5).verdict == "fault" and outbox.problem is None


def test_a_damaged_file_and_one_of_the_future_are_refused(tmp_path):
    (tmp_path / "line.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="cannot be used"):
        Outbox(tmp_path)
    Outbox(tmp_path / "b").close()
    with sqlite3.connect(tmp_path / "b" / "line.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="later heldout"):
        Outbox(tmp_path / "b")


def damage(outbox) -> None:
    """Every page but the first, which has the schema, as a dying disk leaves it."""
    with open(outbox.path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def full_of_signals(folder) -> None:
    """In the file itself, not in its log."""
    outbox = Outbox(folder)
    for part in range(1, 100):
        last = outbox.finish(verdict(part))
    last.result(5)
    outbox.close()


def test_a_file_that_is_damaged_while_it_is_written_is_given_up_and_said(tmp_path):
    full_of_signals(tmp_path)
    outbox = Outbox(tmp_path)
    damage(outbox)
    for asked in (outbox.finish(verdict(100)), outbox.begin(begun(101))):
        with pytest.raises(Damaged, match="line.sqlite cannot be used .*malformed.*: put it aside"):
            asked.result(5)
    assert "malformed" in outbox.problem
    with pytest.raises(Damaged, match="malformed"):
        outbox.last_signals(9)
    outbox.close()  # and does not wait for what will never be written
    with pytest.raises(Damaged, match="line.sqlite cannot be used"):
        Outbox(tmp_path)


def test_damage_that_is_read_stops_what_writes(tmp_path):
    full_of_signals(tmp_path)
    outbox = Outbox(tmp_path)
    damage(outbox)
    with pytest.raises(Damaged):
        outbox.signal_of(verdict(1).id)
    assert outbox.problem and isinstance(outbox.finish(verdict(100)).exception(5), Damaged)
    outbox.close()


def test_a_statement_that_is_wrong_fails_alone(outbox):
    twice = [outbox._asked(lambda connection: connection.execute("INSERT INTO stations VALUES ('cap', 1)").rowcount)
             for _ in range(2)]  # fmt: skip
    assert twice[0].result(5) == 1 and isinstance(twice[1].exception(5), sqlite3.IntegrityError)
    assert outbox.finish(verdict(1)).result(5).part == 1 and outbox.problem is None


FLIPPED = "CAST(replace(CAST(json AS BLOB), CAST('pass' AS BLOB), x'f0617373') AS TEXT)"  # a bit of a letter


@pytest.mark.parametrize("text", ["'{}'", "'[]'", "'x'", "NULL", "x'ff'", "CAST(x'ff' AS TEXT)", "5", FLIPPED,
                                  "replace(json, '\"pass', '\"qass')"])  # fmt: skip
def test_a_damaged_signal_is_said_as_other_damage(outbox, text):
    outbox.finish(verdict(1)).result(5)
    outbox._asked(lambda connection: connection.execute(f"UPDATE signals SET json = {text}")).result(5)
    for read in (lambda: outbox.last_signals(9), lambda: outbox.finish(verdict(1)).result(5)):
        with pytest.raises(UserError, match="line.sqlite cannot be used"):
            read()


def test_what_can_go_onto_no_disk_fails_alone(outbox):
    outbox.begin(begun(1)).result(5)
    broken, half = outbox.finish(verdict(1, score=float("nan"))), outbox.begin(replace(begun(3), name="\ud800"))
    whole = outbox.finish(verdict(2))
    assert whole.result(5).part == 2 and isinstance(broken.exception(5), ValueError)
    assert isinstance(half.exception(5), UnicodeEncodeError) and outbox.problem is None
    assert outbox.recover() == 1 and outbox.signal_of(verdict(1).id).verdict == "fault"  # nothing of it was left


WRITER = """
import sys
from pathlib import Path
from made_signals import begun, verdict
from downstream.stations.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for part in range(outbox.last_part("cap") + 1, 10**6):
    outbox.begin(begun(part)).result()
    print("begun", part, flush=True)
    outbox.finish(verdict(part)).result()
    print("done", part, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_said_was_written(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    said = []
    for lines in (3, 8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                                   env=environment)  # fmt: skip
        said += [process.stdout.readline().split() for _ in range(lines)]
        process.send_signal(signals.SIGKILL)
        said += [line.split() for line in process.communicate()[0].splitlines()]
    outbox = Outbox(tmp_path)
    outbox.recover()
    found = {each.part: each.verdict for each in outbox.last_signals(10**6)}
    assert {int(part) for _, part in said} <= {*found}
    assert all(found[int(part)] == "pass" for what, part in said if what == "done")
    assert [*found.values()].count("fault") <= 2 and sorted(found) == [*range(1, len(found) + 1)]
    outbox.close()
