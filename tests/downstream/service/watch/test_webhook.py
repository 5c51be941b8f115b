"""A word to another program: sent once in a while, and in nobody's way where it does not answer."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from downstream.service.watch.webhook import QUIET_S, Webhook


@pytest.fixture
def other_end():
    """Its address, and what it was told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if len(told) == 1 else 204)  # its faults are its own
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", told
        server.shutdown()


def test_what_is_said_again_is_sent_again_only_after_a_while(other_end):
    url, told = other_end
    time_s = [0.0]
    webhook = Webhook(url, lambda: time_s[0])
    assert webhook.tell("too dark", "bolt", "the camera: too dark", "2026")
    assert not webhook.tell("too dark", "bolt", "the camera: too dark", "2026")
    assert webhook.tell("too dark", "nut", "the camera: too dark", "2026")
    time_s[0] += QUIET_S + 1
    assert webhook.tell("too dark", "bolt", "the camera: too dark", "2027")
    webhook.stop()
    assert [(one["model"], one["at"]) for one in told] == [("bolt", "2026"), ("nut", "2026"), ("bolt", "2027")]
    assert told[0] == {"kind": "too dark", "model": "bolt", "words": "the camera: too dark", "at": "2026"}


def test_nobody_waits_for_one_that_does_not_answer_and_without_a_url_nothing_is_sent():
    webhook = Webhook("http://127.0.0.1:1/hook")
    assert webhook.tell("drift", "bolt", "drifted", "2026")
    webhook.stop()
    nobody = Webhook(None)
    assert not nobody.tell("drift", "bolt", "drifted", "2026")
    nobody.stop()


def test_an_odd_answer_ends_nothing_and_nobody_is_sent_elsewhere():
    asked = []

    def answer(listening: socket.socket) -> None:
        for words in (b"odd\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", b""):
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(9000).partition(b" HTTP")[0])
                connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer, args=(listening,), daemon=True)
        answering.start()
        webhook = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/hook")
        for model in ("bolt", "nut", "pin"):
            assert webhook.tell("drift", model, "drifted", "2026")
        webhook.stop()
        answering.join(5)
    assert asked == [b"POST /hook"] * 3
