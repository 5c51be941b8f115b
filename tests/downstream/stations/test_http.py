"""The line's own HTTP: images in, calls in, status and events out; by the access rules of the service."""

import asyncio
import json
import threading
from io import BytesIO

import jsonschema
import pytest
from line_here import running, until
from PIL import Image

from downstream.stations.signal import signal_schema

TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def here(onnx_file, demo_folder, tmp_path_factory):
    nuts = demo_folder / "hazelnut/test/good"
    stations = [
        {"name": "push", "budget_ms": 20_000, "source": {"type": "push", "max_image_mb": 3}},
        {"name": "call", "budget_ms": 20_000, "trigger": {"type": "call"},
         "source": {"type": "replay", "path": str(nuts), "rate": 20, "loops": 0}},
    ]  # fmt: skip
    with running(onnx_file, tmp_path_factory.mktemp("http"), stations, port=0) as running_line:
        yield running_line


@pytest.fixture(scope="module")
def image(demo_folder) -> bytes:
    return next((demo_folder / "hazelnut/test/good").iterdir()).read_bytes()


def test_a_pushed_image_is_answered_with_its_signal(here, image):
    answer = here.client.post("/api/stations/push/parts?name=17", content=image)
    assert answer.status_code == 200
    jsonschema.validate(answer.json(), signal_schema())
    assert (answer.json()["name"], answer.json()["verdict"]) == ("17", "pass")
    assert {each["station"] for each in here.client.get("/api/signals?station=push").json()} == {"push"}
    assert here.client.get("/api/signals?station=call&limit=1").json() != [{**answer.json(), "has_image": False}]
    assert here.client.get("/api/signals?limit=1").json() == [{**answer.json(), "has_image": False}]


def test_an_image_may_be_as_large_as_the_station_says(here, image):
    answer = here.client.post("/api/stations/push/parts", content=image + bytes(5 << 19))
    assert (answer.status_code, answer.json().get("verdict")) == (200, "pass")


def test_asked_twice_with_one_key_it_is_one_part(here, image):
    count = here.station("push").tally.counts.total()
    headers = {"Idempotency-Key": "part 18"}
    first, second = (here.client.post("/api/stations/push/parts", content=image, headers=headers) for _ in range(2))
    assert first.json() == second.json() and here.station("push").tally.counts.total() == count + 1


def test_what_is_no_image_is_a_fault(here):
    answer = here.client.post("/api/stations/push/parts", content=b"no image").json()
    assert answer["verdict"] == "fault" and "no image" in answer["reason"]


def test_a_call_is_answered_with_the_signal_or_at_once_with_the_id(here):
    answer = here.client.post("/api/stations/call/trigger", json={"name": "19"}).json()
    assert (answer["name"], answer["verdict"], answer["frames"]) == ("19", "pass", 1)
    half = here.client.post("/api/stations/call/trigger", content=b'{"name": "\\ud800 20"}').json()
    assert (half["name"], half["verdict"]) == ("? 20", "pass")  # half a character is no name
    at_once = here.client.post("/api/stations/call/trigger?wait=false")
    assert at_once.status_code == 202
    until(lambda: here.line._outbox.signal_of(at_once.json()["id"]))


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "words"),
    [("POST", "/api/stations/pusch/parts", {}, 404, "did you mean push?"),
     ("POST", "/api/stations/call/parts", {}, 409, "takes no images"),
     ("POST", "/api/stations/push/trigger", {}, 409, "is not called"),
     ("POST", "/api/stations/call/trigger", {"content": b"[1]"}, 422, "the body has to be"),
     ("POST", "/api/stations/push/parts", {"content": b"x" * (3 << 20) + b"x"}, 413, "MiB at most"),
     ("POST", "/api/stations/call/trigger", {"content": b"x" * (2 << 20) + b"x"}, 413, "2 MiB at most"),
     ("GET", "/api/signals?limit=0", {}, 422, "1 to 1000"),
     ("GET", f"/api/signals?limit={'1' * 5000}", {}, 422, "1 to 1000"),
     ("GET", "/api/signals?station=pusch", {}, 404, "did you mean push?"),
     ("GET", "/api/signals/nobody/image", {}, 404, "no image is kept"),
     ("GET", "/api/status", {"headers": {"Host": "evil.example"}}, 400, "host name"),
     ("POST", "/api/stations/call/trigger", {"headers": {"Origin": "http://evil.example"}}, 403, "other sites")],
)  # fmt: skip
def test_what_cannot_be_is_said(here, method, path, options, status, words):
    answer = here.client.request(method, path, **options)
    assert answer.status_code == status and words in answer.json()["detail"]


def test_the_status_and_the_newest_image(here, image):
    here.client.post("/api/stations/push/parts", content=image)
    push = next(each for each in here.client.get("/api/status").json()["stations"] if each["station"] == "push")
    assert push["mode"] == "running" and push["newest"]["verdict"] == "pass" and push["heartbeat"] >= 1
    plain, drawn = (here.client.get(f"/api/stations/push/image?overlay={which}") for which in ("false", "true"))
    assert plain.headers["content-type"] == "image/jpeg" and plain.headers["x-part"] == push["newest"]["id"]
    assert Image.open(BytesIO(plain.content)).size == Image.open(BytesIO(image)).size
    assert Image.open(BytesIO(drawn.content)).width > 0 and drawn.content != plain.content
    assert here.client.get("/health").json() == {"status": "ok"}


def test_events_come_as_they_happen(here, image):
    got, is_there = [], threading.Event()

    def listen() -> None:
        with here.client.stream("GET", "/api/events") as events:
            kind = ""
            for line in events.iter_lines():
                kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
                if line.startswith("data: "):
                    got.append((kind, json.loads(line.removeprefix("data: "))))
                    is_there.set()
                    if kind == "signal":
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    assert is_there.wait(20) and got[0][0] == "status"
    sent = here.client.post("/api/stations/push/parts", content=image).json()
    thread.join(20)
    assert got[-1] == ("signal", sent) and "state" in {kind for kind, _ in got}


def test_with_a_token_nobody_else_may_ask(onnx_file, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with running(onnx_file, tmp_path, [{"name": "push", "source": {"type": "push"}}], port=0,
                 token_file=tmp_path / "token") as here:  # fmt: skip
        assert here.client.get("/api/status").status_code == 401 and here.client.get("/health").status_code == 200
        assert here.client.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_who_goes_away_within_a_body_is_no_fault_of_the_line(here):
    messages, said = iter([{"type": "http.request", "body": b"ha", "more_body": True}, {"type": "http.disconnect"}]), []

    async def receive() -> dict:
        return next(messages)

    async def send(message: dict) -> None:
        said.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"99")]
    scope = {"type": "http", "method": "POST", "path": "/api/stations/push/parts", "query_string": b"", "root_path": "",
             "headers": headers, "scheme": "http"}  # fmt: skip
    asyncio.run(here.line.http._server.config.app.app(scope, receive, send))
    assert said[0]["status"] == 400
