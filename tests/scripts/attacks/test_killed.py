"""What is killed, and how what it lost is found."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ended import Ended

from downstream.service.database import Database, StoredResult
from downstream.stations.signal import Signal
from scripts.attacks import line_kills, ray_kills
from scripts.attacks.line_kills import unsaid
from scripts.attacks.lost_results import lost
from scripts.attacks.material import CATEGORY, Material


def test_a_fault_of_a_line_before_its_last_turn_is_found(tmp_path, monkeypatch):
    coming = iter([Ended(0, "Traceback of the first"), Ended(0), Ended(0)])
    image = tmp_path / "demo" / CATEGORY / "test" / "good" / "0.png"
    image.parent.mkdir(parents=True)
    image.touch()
    monkeypatch.setattr(line_kills, "Started", lambda *words: next(coming))
    monkeypatch.setattr(line_kills, "_came", lambda *_: True)
    monkeypatch.setattr(line_kills, "time", SimpleNamespace(sleep=lambda _: None))
    assert line_kills.LineKills(Material(tmp_path)).attempt(random.Random(0), tmp_path) == "Traceback of the first"


def test_a_part_without_its_one_signal_is_found(tmp_path):
    signals = [Signal(str(number), "a", number, f"{number}.png", "pass", "", 0.5, 1.0, "m", "1", "2026-01-31", 1.0)
               for number in (1, 2)]  # fmt: skip
    table = tmp_path / "parts.csv"
    table.write_text("id,verdict\n1,pass\n2,pass\n")
    assert unsaid(["1.png", "2.png"], signals, table) is None
    assert "one signal each" in unsaid(["1.png", "2.png", "3.png"], signals, table)
    assert "one signal each" in unsaid(["1.png", "2.png"], [*signals, replace(signals[0], id="3")], table)
    faulty = [signals[0], replace(signals[1], verdict="fault", reason="late")]
    assert "late" in unsaid(["1.png", "2.png"], faulty, table)
    table.write_text("id,verdict\n1,pass\n")
    assert "1 of 2 signals" in unsaid(["1.png", "2.png"], signals, table)


def test_a_lost_result_is_found(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    result = StoredResult("2026-01-31T23:59:59.123Z", "m", "nut", "a", "0", 1, 1, 0.5, 1.0, False, 0.9, [], 1.0)
    ids = set(database.add_results([result] * 3))
    database.close()
    assert lost(ids, str(tmp_path / "results.sqlite")) is None
    assert lost({*ids, 99}, str(tmp_path / "results.sqlite")) == "1 of 4 answered results are lost: [99]"


@pytest.mark.slow
def test_fifty_kills_on_ray_lose_nothing_and_repeat_nothing(material, tmp_path):
    attack = ray_kills.RayKills(material)
    while len(attack.killed) < 50:
        folder = tmp_path / str(attack.number)
        folder.mkdir()
        assert attack.attempt(random.Random(attack.number), folder) is None, attack.killed
        attack.number += 1
    assert {*attack.killed} == {*ray_kills.VICTIMS}
