"""Rows are whole, whatever was killed, and a spreadsheet takes none for a formula."""

import csv

import pytest
from dying import has_room
from line_here import surroundings
from made_signals import verdict

from downstream.stations.sinks.config import Csv
from downstream.stations.sinks.csv import CsvSink
from pretrain.command import UserError


def sink(folder) -> CsvSink:
    made = CsvSink(Csv(folder / "out" / "line.csv"), surroundings(folder))
    made.open()
    return made


def rows(folder) -> list[dict]:
    with open(folder / "out" / "line.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_signals_are_rows_that_can_be_read_again(tmp_path):
    first = sink(tmp_path)
    first.send(verdict(1, reason="in rim; a, b", regions=[{"area_px": 1}]))
    first.send(verdict(2, "fault", score=None, name="=1+1"))
    first.close()
    again = sink(tmp_path)
    again.send(verdict(3))
    again.close()
    found = rows(tmp_path)
    assert [row["part"] for row in found] == ["1", "2", "3"] and found[0]["reason"] == "in rim; a, b"
    assert (found[0]["regions"], found[1]["score"], found[1]["name"]) == ("1", "", "'=1+1")


def test_half_a_row_of_a_killed_line_is_dropped(tmp_path):
    first = sink(tmp_path)
    first.send(verdict(1))
    first.close()
    with open(tmp_path / "out" / "line.csv", "ab") as file:
        file.write(b"half,a,ro")
    again = sink(tmp_path)
    again.send(verdict(2))
    again.close()
    assert [row["part"] for row in rows(tmp_path)] == ["1", "2"]


def test_a_row_that_the_disk_takes_half_of_is_not_sent(tmp_path):
    """The system says how much it took, and raises nothing."""
    sink(tmp_path).close()
    file = tmp_path / "out" / "line.csv"
    head = file.stat().st_size
    assert not has_room(head + 10, lambda: sink(tmp_path).send(verdict(1)))
    assert file.stat().st_size == head
    again = sink(tmp_path)
    again.send(verdict(1))
    again.close()
    assert [row["part"] for row in rows(tmp_path)] == ["1"]


def test_a_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "line.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        sink(tmp_path)
    assert (tmp_path / "out" / "line.csv").read_text() == "a,b\n1,2\n"
