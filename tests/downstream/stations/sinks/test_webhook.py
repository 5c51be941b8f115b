"""A receiver of the test's own that fails, refuses, has it already, and checks the signature."""

import hashlib
import hmac
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from line_here import surroundings
from made_signals import verdict

from downstream.stations.contract import NotDelivered, Refused
from downstream.stations.options import Secret
from downstream.stations.sinks.config import Webhook
from downstream.stations.sinks.webhook import WebhookSink, signature


@pytest.fixture
def receiver():
    """`answers` are its next status codes; 200 after them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.got.append((dict(self.headers), body))
            self.send_response(server.answers.pop(0) if server.answers else 200)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/parts"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_signal_is_posted_with_its_id_and_signed(receiver, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", "a secret")
    sink = WebhookSink(Webhook(receiver.url, Secret(env="HOOK")), surroundings(tmp_path))
    sink.send(verdict(1))
    headers, body = receiver.got[0]
    assert json.loads(body)["id"] == verdict(1).id == headers["Idempotency-Key"]
    signed = headers["X-Heldout-Timestamp"].encode() + b"." + body
    expected = hmac.new(b"a secret", signed, hashlib.sha256).hexdigest()
    assert headers["X-Heldout-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, NotDelivered), (503, NotDelivered), (401, NotDelivered), (302, NotDelivered), (429, NotDelivered),
     (400, Refused), (422, Refused), (409, None), (204, None)],
)  # fmt: skip
def test_answers_are_what_they_mean(receiver, tmp_path, status, error):
    receiver.answers = [status]
    sink = WebhookSink(Webhook(receiver.url), surroundings(tmp_path))
    if error is None:
        sink.send(verdict(1))
    else:
        with pytest.raises(error, match=f"answered {status}"):
            sink.send(verdict(1))
    assert len(receiver.got) == 1


def test_one_that_is_away_is_not_delivered_to_and_its_address_not_shown(receiver, tmp_path):
    receiver.shutdown()
    receiver.server_close()
    with pytest.raises(NotDelivered) as error:
        WebhookSink(Webhook(receiver.url), surroundings(tmp_path)).send(verdict(1))
    assert "parts" not in str(error.value)


def test_the_check_of_the_docs_knows_ours_from_others(receiver, tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[4] / "docs/webhook.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, named := {})
    monkeypatch.setenv("MES_SECRET", "s3cret")
    WebhookSink(Webhook(receiver.url, Secret(env="MES_SECRET")), surroundings(tmp_path)).send(verdict(1))
    ((headers, body),) = receiver.got
    moment, said = headers["X-Heldout-Timestamp"], headers["X-Heldout-Signature"]
    assert named["is_ours"](b"s3cret", moment, said, body)
    old = str(int(moment) - 1000)
    assert not named["is_ours"](b"s3cret", old, signature(b"s3cret", old, body), body)
    assert not named["is_ours"](b"other", moment, said, body) and not named["is_ours"](b"s3cret", moment, said, b"{}")
