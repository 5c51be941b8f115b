"""A server of the tests' own with a plug that can be pulled and put in again."""

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress


class Plugged(ABC):
    """Takes connections at `port`, each in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.port, self.connections = port, 0
        self._open: list[socket.socket] = []
        self.plug_in()

    def plug_in(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def pull_the_plug(self) -> None:
        """All connections are cut, and none is taken."""
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open = []

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self._open.append(connection)
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @abstractmethod
    def _answer(self, connection: socket.socket) -> None: ...
