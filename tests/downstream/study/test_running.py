"""What runs where, as workers say it in files, some of which died."""

import io
import json
import os
import time

from rich.console import Console

from downstream.study import running as module
from downstream.study.running import FOLDER, Board, said_to_run

CELL = "cells/bottle/padim-random-seed-0-1234abcd.safetensors"


def left_by(out, worker: str, cell: str, seconds_ago: float) -> None:
    (out / FOLDER).mkdir(exist_ok=True)
    (out / FOLDER / f"{worker}.json").write_text(json.dumps({"cell": cell, "since_s": time.time() - seconds_ago}))


def shown(board: Board) -> str:
    file = io.StringIO()
    Console(file=file, width=120).print(board.table())
    return file.getvalue()


def test_a_cell_is_said_to_run_while_it_does(tmp_path):
    with Board(tmp_path) as board, said_to_run(tmp_path, CELL):
        (running,) = board.running()
        assert running.cell == CELL and abs(running.since_s - time.time()) < 5
        assert running.worker in shown(board) and "bottle/padim-random-seed-0 " in shown(board)
        assert "1 run, longest bottle/padim-random-seed-0 on " in board.in_words()
    assert board._look() == [] and not (tmp_path / FOLDER).exists()


def test_what_a_dead_worker_said_counts_no_more(tmp_path):
    left_by(tmp_path, "of an earlier run", CELL, 9)
    with Board(tmp_path) as board:
        assert board.running() == []
        left_by(tmp_path, "dead", CELL, 60)
        left_by(tmp_path, "alive", CELL, 5)
        left_by(tmp_path, "other", CELL.replace("seed-0", "seed-1"), 20)
        (tmp_path / FOLDER / "half.json").write_text("{")
        assert [running.worker for running in board._look()] == ["other", "alive"]
        (tmp_path / CELL).parent.mkdir(parents=True)
        (tmp_path / CELL).touch()
        assert [running.worker for running in board._look()] == ["other"]


def test_a_worker_that_gives_no_sign_is_called_silent_and_one_that_does_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SIGNS", 0.01)
    with Board(tmp_path) as board, said_to_run(tmp_path, CELL):
        left_by(tmp_path, "frozen", CELL.replace("seed-0", "seed-1"), 200)
        for file in (tmp_path / FOLDER).iterdir():
            os.utime(file, (0, time.time() - 125))
        deadline_s = time.monotonic() + 10
        while len([each for each in board._look() if each.silence()]) > 1:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert "; 1 silent, as frozen, for 2 min" in board.in_words() and "2 min" in shown(board)
