"""Concurrent callers, one call; each its own outcome, and nobody is forgotten."""

import asyncio
import threading
import time

import pytest

from downstream.service.batching import Admission, Batcher, Busy


def run(test):
    return asyncio.run(test)


class Doubling:
    """Doubles numbers, remembers in which batches they came, and holds the first one until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()

    def __call__(self, numbers):
        self.batches.append(list(numbers))
        assert self.may_go.wait(10)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [ZeroDivisionError("zero") if number == 0 else 2 * number for number in numbers]


async def begun(double: Doubling, most: int = 4) -> Batcher:
    batcher = Batcher(double, most, "test")
    batcher.start()
    return batcher


def test_what_waits_is_taken_together_and_each_gets_its_own():
    async def test():
        double = Doubling()
        batcher = await begun(double)
        first = asyncio.create_task(batcher(1))
        while not double.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher(number)) for number in range(2, 9)]
        await asyncio.sleep(0.01)
        assert len(batcher) == 7
        double.may_go.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10, 12, 14, 16]
        assert double.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
        await batcher.stop()

    run(test())


def test_alone_it_does_not_wait_for_company():
    async def test():
        double = Doubling()
        double.may_go.set()
        batcher = await begun(double)
        start_s = time.perf_counter()
        assert await batcher(4) == 8
        assert time.perf_counter() - start_s < 0.5
        await batcher.stop()

    run(test())


def test_an_error_reaches_whom_it_concerns_and_ends_nothing():
    async def test():
        double = Doubling()
        double.may_go.set()
        batcher = await begun(double)
        outcomes = await asyncio.gather(*(batcher(number) for number in (1, 0, 3)), return_exceptions=True)
        assert outcomes[0] == 2 and outcomes[2] == 6 and isinstance(outcomes[1], ZeroDivisionError)
        outcomes = await asyncio.gather(*(batcher(number) for number in (1, 13)), return_exceptions=True)
        assert all(isinstance(outcome, ValueError) for outcome in outcomes)
        assert await batcher(5) == 10
        await batcher.stop()

    run(test())


def test_who_was_cancelled_is_left_out():
    async def test():
        double = Doubling()
        batcher = await begun(double)
        first = asyncio.create_task(batcher(1))
        while not double.batches:
            await asyncio.sleep(0.001)
        gone, stays = asyncio.create_task(batcher(2)), asyncio.create_task(batcher(3))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        double.may_go.set()
        assert await first == 2 and await stays == 6
        assert double.batches == [[1], [3]]
        await batcher.stop()

    run(test())


def test_a_stop_answers_what_was_accepted_and_refuses_what_comes_after():
    async def test():
        double = Doubling()
        batcher = await begun(double, most=2)
        tasks = [asyncio.create_task(batcher(number)) for number in range(1, 6)]
        while not double.batches:
            await asyncio.sleep(0.001)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await batcher(9)
        double.may_go.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
        await stopping

    run(test())


def test_no_more_are_admitted_than_there_are_places():
    admission = Admission(3)
    with admission.enter(2):
        with pytest.raises(Busy) as busy, admission.enter(2):
            pass
        assert busy.value.retry_s >= 1
        with admission.enter():
            assert admission.in_progress == 3
        assert admission.in_progress == 2
    with pytest.raises(ZeroDivisionError), admission.enter(3):
        raise ZeroDivisionError
    assert admission.in_progress == 0


def test_when_to_come_back_is_told_by_the_speed_of_late(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    admission = Admission(50)
    for _ in range(10):  # two a second
        with admission.enter():
            now_s[0] += 0.5
    with admission.enter(40), pytest.raises(Busy) as busy, admission.enter(11):
        pass
    assert busy.value.retry_s == 18  # 40 inside; 4.5 s since the first of 10 answers
