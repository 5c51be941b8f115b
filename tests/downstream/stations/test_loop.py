"""What runs in it gives its result to another thread, and ends with it."""

import asyncio
import threading

import pytest

from downstream.stations.loop import Loop


def test_it_runs_beside_and_ends_what_still_runs():
    async def name() -> str:
        tasks.append(asyncio.create_task(asyncio.sleep(60)))
        return threading.current_thread().name

    async def fails() -> None:
        raise OSError("taken")

    tasks, loop = [], Loop("beside")
    loop.start()
    assert loop.run(name()) == "beside"
    with pytest.raises(OSError, match="taken"):
        loop.run(fails())
    called = threading.Event()
    loop.call(called.set)
    assert called.wait(10)
    loop.stop()
    loop.call(called.clear)
    assert tasks[0].cancelled()
    loop.stop()
    Loop("never started").stop()
