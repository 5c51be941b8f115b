"""The watchdog calls when it is time, in order, whatever one of the calls does."""

import time

from line_here import until

from downstream.stations.deadlines import LOOK_S, Deadlines


def test_what_is_due_is_called_in_time_and_a_fault_of_one_is_its_own():
    called, now_s = [], time.monotonic()
    deadlines = Deadlines()

    def fail() -> None:
        raise RuntimeError("a fault of the test's own")

    deadlines.add(now_s + 0.3, lambda: called.append(("late", time.monotonic())))
    deadlines.add(now_s + 0.1, lambda: called.append(("soon", time.monotonic())))
    deadlines.add(now_s + 0.05, fail)
    deadlines.add(now_s + 60, lambda: called.append(("never", 0)))
    until(lambda: len(called) == 2)
    assert [name for name, _ in called] == ["soon", "late"]
    assert called[0][1] >= now_s + 0.1 and called[1][1] >= now_s + 0.3
    assert deadlines.is_awake()
    deadlines.stop()
    time.sleep(5 * LOOK_S)
    assert not deadlines.is_awake()
