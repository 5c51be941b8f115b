"""An event loop in a thread of its own, for servers that want one."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

# Of a machine that has much else to do.
PATIENCE_S = 30.0


class Loop:
    """Runs from `start()` to `stop()`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Its result; from another thread. Raises TimeoutError where that takes too long."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)

    def call(self, what: Callable[[], object]) -> None:
        """Soon; not at all where it has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def stop(self) -> None:
        """Tasks that still run are cancelled."""
        if self._thread.is_alive():
            self.run(_cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
