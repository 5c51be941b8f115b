"""What the tests of attacks share."""

import socketserver
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest


class FaultyService(socketserver.ThreadingTCPServer):
    """Answers any bytes with `status` and closes, scores as `score`, and logs `added_log` with each score."""

    status, score, added_log = 200, 1.0, ""
    daemon_threads, request_queue_size = True, 128

    class RequestHandlerClass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(f"HTTP/1.1 {self.server.status} Internal\r\n\r\n".encode())

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()
        self.url = "http://{}:{}".format(*self.server_address)
        self.log, self.process = "", SimpleNamespace(pid=0, poll=lambda: None)
        self.client = SimpleNamespace(get=lambda _: httpx.Response(200, json={"paths": {}}))

    def test(self, data: bytes, **fields) -> httpx.Response:
        self.log += self.added_log
        return httpx.Response(200, json={"anomaly_score": self.score})


@pytest.fixture
def faulty_service() -> Iterator[FaultyService]:
    with FaultyService() as serving:
        yield serving
        serving.shutdown()
