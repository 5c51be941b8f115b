"""Connections that ask for nothing: each has seconds to send the head of a request, and there are not too many.

A server that waits for ever for the rest of a head stops answering once such connections hold all of its descriptors.
So would one that reads on for ever what a client sends after its answer.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_FOR_A_HEAD = 10.0
MAX_CONNECTIONS = 1000


def max_connections() -> int:
    """At most half of the descriptors that this process may open: files, the database and decoders need others."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))


# Connections that wait to be taken. Python takes so many at once where descriptors have run out, and logs each failure.
BACKLOG = 1 + max_connections() // 8


class BoundedConnection(H11Protocol):
    """uvicorn's connection, closed unless its request's head has come in time: from its beginning, and again from the
    first byte of a further request; and unless what it sends after an answer ends in time. Of more than `limit`, the
    one that has waited longest makes room."""

    limit = max_connections()
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._heed_deadline()
        if len(self.connections) > self.limit:
            waiting = [connection for connection in self.connections if connection._deadline is not None]
            min(waiting, key=lambda connection: connection._deadline.when()).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._heed_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._sends_after_the_answer():
            self._heed_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _heed_deadline(self) -> None:
        if self.conn.their_state is not h11.IDLE and not self._sends_after_the_answer():  # the head is there
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(SECONDS_FOR_A_HEAD, self.transport.abort)

    def _sends_after_the_answer(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
