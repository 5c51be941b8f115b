"""A bar on a terminal, plain lines in a pipe."""

import io
import sys
import time

from pretrain import progress as progress_module
from pretrain.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_piped_output_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    clock = iter(range(0, 1000, 2))  # two seconds pass each time somebody looks
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("decoding", 20) as progress:
        for _ in range(20):
            progress.advance(note="1 unreadable")
    lines = sys.stderr.getvalue().splitlines()
    assert 3 < len(lines) < 20
    assert "/20 images" in lines[0] and "s left, 1 unreadable" in lines[0]
    assert lines[-1].startswith("decoding: 20/20 images, in ")


def test_quick_work_gets_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("decoding", 3) as progress:
        for _ in range(3):
            progress.advance()
    assert len(sys.stderr.getvalue().splitlines()) == 1


def test_terminal_gets_a_bar_with_count_and_rate(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("decoding", 3) as progress:
        progress.advance(2, note="all well")
        progress.print("[a line] of its own")
    shown = sys.stderr.getvalue()
    assert "decoding" in shown and "2/3" in shown and "/s" in shown and "[a line] of its own" in shown


def test_below_the_bar_is_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("study", 3, "cells", below=lambda: "two workers are at it"):
        pass
    assert "two workers are at it" in sys.stderr.getvalue()


def test_resumed_work_counts_only_its_own_share_into_the_rate(monkeypatch):
    clock = iter((0.0, 10.0, 10.0, 10.0, 10.0, 10.0))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("training", 200, "steps", done=100) as progress:
        progress.done += 50
        assert progress.rate == 5.0
        assert progress.seconds_left == 10.0


def test_a_failure_is_not_reported_as_done(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    try:
        with Progress("decoding", 3):
            raise KeyError
    except KeyError:
        pass
    assert sys.stderr.getvalue() == ""


def test_inside_another_one_nothing_is_said(monkeypatch):
    """Two bars at once tear each other; a line for each of a hundred short ones buries the outer one's."""
    for stderr in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stderr)
        with Progress("outer", 2) as outer:
            with Progress("inner", 3) as inner:
                inner.advance(3)
            outer.advance(2)
        assert "inner" not in stderr.getvalue() and "outer" in stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("afterwards", 1) as after:
        after.advance()
    assert "afterwards: 1/1" in sys.stderr.getvalue()


def test_what_is_left_is_told_in_words_also_while_one_count_takes_long(monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_SIGNS", 0.04)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("study", 3, "cells", time_left=lambda: "about 5 min left") as progress:
        progress.running("the first")
        deadline = time.monotonic() + 10
        while "\n" not in sys.stderr.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = sys.stderr.getvalue().splitlines()
    assert lines[0] == "study: 0/3 cells, about 5 min left, the first"
    time.sleep(0.1)
    assert sys.stderr.getvalue().splitlines() == lines  # nothing after its end


def test_a_bar_tells_what_is_left_in_words(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("study", 3, "cells", time_left=lambda: "about 5 min left") as progress:
        progress.running("the first")
        progress.advance(note="the first")
    assert "about 5 min left" in sys.stderr.getvalue() and "1/3" in sys.stderr.getvalue()


def test_the_innermost_is_the_last_that_was_opened_inside_another(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("study", 3):
        assert Progress.innermost() is None
        with Progress("training", 100) as inner:
            assert Progress.innermost() is inner
        assert Progress.innermost() is None


def test_durations_are_told_roughly():
    assert [duration(seconds) for seconds in (0, 40.4, 99, 840, 5940, 7800)] == [
        "0 s", "40 s", "99 s", "14 min", "99 min", "2 h 10 min",
    ]  # fmt: skip
