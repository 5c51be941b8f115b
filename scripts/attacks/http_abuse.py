"""Requests that no client means: half heads, broken bodies, endless ones, odd paths and values. None is answered by a
fault of the service, and afterwards it answers an image as before."""

import json
import random
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from scripts.attacks.attack import Attack, traceback_in
from scripts.attacks.hostile_images import spoiled_image
from scripts.attacks.material import Material
from scripts.attacks.serving import Serving, another_score, image_bytes, served

REQUESTS, SECONDS = 25, 60
# What a service may say beside what says that the client is wrong: it does not hold a full disk or a full house.
UNAVAILABLE = (503, 507)
MAX_LOG_BYTES_A_REQUEST = 10_000
MAX_GROWTH_BYTES, TRIES_OF_WARMTH = 300 << 20, 20
ENDLESS_BYTES = 40 << 20  # the limit is 17 MB with --max-image-mb 4
ODD_PATHS = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/api/images/../../x", "/%00",
             "/\xff\xfe", "/api/images/" + "a" * 9000, "*", "http://elsewhere/", "/api/results?limit=-1",
             "/api/results?limit=1e9", "/api/results?since=%00", "/api/results?page=9999999999999999999",
             "/api/status?" + "a=b&" * 2000, "/api/images/-1/x", "/.git/config",
             "/api/results?name='%20OR%201=1--", "/app.js%00.png")  # fmt: skip
ODD_VALUES = (None, True, -1, 1e308, "", "a" * 100_000, [], {}, {"name": None}, {"name": ["x"]}, {"name": "../../etc"},
              {"value": "1"}, {"value": {}}, {"value": 10**400}, {"name": "\x00"}, {"name": "hazelnut\n"})  # fmt: skip
# By what is well said here a version that was learned would come into use, and score otherwise.
ONLY_ODD, MAX_DRAWN_DEPTH = ("/api/learn", "/api/promote"), 8
ODD_TEXTS = (b"", b"{", b"[" * 100_000, b'{"value": NaN}', b'{"value": 1e999}', b"\xff\xfe{}", b'{"a":1,"a":2}')


class Sent(NamedTuple):
    """What goes over a connection. Where the service may wait for more of it, nobody waits for its answer for long."""

    data: bytes
    may_lack: bool = False


class HttpAbuse(Attack):
    """One try is twenty-five requests, and one image that must be answered as the first was."""

    unit = f"{REQUESTS} requests"
    score = "anomaly_score"  # its name in an answer

    def __init__(self, material: Material) -> None:
        self._material, self._open, self._image = material, ExitStack(), image_bytes()
        self._start()
        self._score = self._scored()

    def _start(self) -> None:
        folder = self._material.folder / "served"
        self._serving = self._open.enter_context(served(self._material.judging, folder, "--max-image-mb", "4"))
        self._described = self._serving.client.get("/openapi.json").json()
        self._tries = self._bytes_when_warm = 0

    def close(self) -> None:
        self._open.close()

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        if self._serving.process.poll() is not None:  # which the try before has told
            self._start()
        self._tries += 1
        log_bytes = len(self._serving.log)
        half_heads = [connected(self._serving) for _ in range(chance.randrange(0, 100, 25))]
        for connection in half_heads:
            with suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: "[: chance.randrange(1, 23)])
        try:
            for number in range(REQUESTS):
                make = chance.choice((*ABUSES, *[self.drawn_body] * 8))
                sent = self.aimed(make(chance))
                (folder / f"{number}-{make.__name__}.http").write_bytes(sent.data)
                if failed := self._answered(sent, chance):
                    return f"request {number}, {make.__name__}: {failed}"
            return self._changed(log_bytes)
        finally:
            for connection in half_heads:
                connection.close()

    def drawn_body(self, chance: random.Random) -> Sent:
        """To any endpoint that takes JSON, what its own description asks for, but for some of it."""
        taken = json_bodies(self._described)
        if not taken:
            return odd_value(chance)
        method, path, schema = chance.choice(taken)
        body = chance.choice(ODD_VALUES) if path in ONLY_ODD else drawn(schema, self._described, chance)
        path = re.sub("{.*?}", lambda _: chance.choice(("0", "1", "-1", "a", "%00", f"{2**70}")), path)
        return Sent(request(method, path, json.dumps(body).encode()))

    def aimed(self, sent: Sent) -> Sent:
        """To where this one takes images."""
        return sent

    def _answered(self, sent: Sent, chance: random.Random) -> str | None:
        """What is wrong with the answer; to be closed without one is not."""
        with connected(self._serving) as connection:
            if sent.may_lack:
                connection.settimeout(0.05)
            answer = b""
            with suppress(OSError):
                connection.sendall(sent.data)
                if chance.random() < 0.1:  # and goes away without looking
                    return None
                while b"\r\n" not in answer and (received := connection.recv(4096)):
                    answer += received
        status = answer.split()[1] if answer.startswith(b"HTTP/1.") else b""
        if status.startswith(b"5") and int(status) not in UNAVAILABLE:
            return answer[:300].decode("latin-1")
        return None

    def _changed(self, log_bytes: int) -> str | None:
        """What is no longer as it was before."""
        if failed := another_score(self._score, self._scored()):
            return failed
        said = self._serving.log[log_bytes:]
        if failed := traceback_in(said):
            return failed
        if len(said) > MAX_LOG_BYTES_A_REQUEST * REQUESTS:
            return f"the log grew by {len(said)} bytes"
        held_bytes = resident_bytes(self._serving.process.pid)
        if self._tries <= TRIES_OF_WARMTH:
            self._bytes_when_warm = held_bytes
        elif held_bytes > self._bytes_when_warm + MAX_GROWTH_BYTES:
            return f"the memory grew from {self._bytes_when_warm >> 20} to {held_bytes >> 20} MiB"
        return None

    def _scored(self) -> float | str:
        answer = self._serving.test(self._image)
        return answer.json()[self.score] if answer.status_code == 200 else answer.text


def json_bodies(described: dict) -> list[tuple[str, str, dict]]:
    """Method, path and schema of what an OpenAPI description has of endpoints that take JSON."""
    operations = [(method.upper(), path, operation) for path, methods in described["paths"].items()
                  for method, operation in methods.items()]  # fmt: skip
    contents = [
        (method, path, operation.get("requestBody", {}).get("content", {})) for method, path, operation in operations
    ]
    return [(*of, content["application/json"]["schema"]) for *of, content in contents if "application/json" in content]


def drawn(schema: dict, described: dict, chance: random.Random, depth: int = 0) -> object:
    """A value of a schema, of which one in six parts is odd."""
    if chance.random() < 1 / 6 or depth > MAX_DRAWN_DEPTH:
        return chance.choice(ODD_VALUES)
    if "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return drawn(chance.choice(choices), described, chance, depth + 1)
    if "enum" in schema or "const" in schema:
        return chance.choice(schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "object":
        fields = {name: inner for name, inner in schema.get("properties", {}).items() if chance.random() < 0.9}
        return {name: drawn(inner, described, chance, depth + 1) for name, inner in fields.items()}
    if kind == "array":
        items = schema.get("items") or chance.choice(schema.get("prefixItems", [{}]))
        return [drawn(items, described, chance, depth + 1) for _ in range(chance.randrange(5))]
    values = {"integer": (0, 1, 2, -1, 2**31, 2**63), "number": (0, 0.5, -1, 1e308), "boolean": (True, False),
              "string": ("", "model", "agree", "a" * 10_000, "\x00", "2026-01-31T10:00Z"), "null": (None,)}  # fmt: skip
    return chance.choice(values.get(kind, ODD_VALUES))


def connected(serving: Serving) -> socket.socket:
    host, _, port = serving.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 where the system does not say it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: object) -> bytes:
    given = {"Host": "localhost", "Content_Type": kind, "Content_Length": len(body), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def with_image(image: bytes, name: str = "a.png") -> tuple[bytes, str]:
    """A body with one image, and its kind."""
    head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    return head + image + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


def broken_image(chance: random.Random) -> Sent:
    return Sent(request("POST", "/api/test_image", *with_image(spoiled_image(chance).data)))


def broken_multipart(chance: random.Random) -> Sent:
    """A whole request in which bytes were changed, taken out, put in or repeated."""
    data = bytearray(request("POST", "/api/test_image", *with_image(image_bytes(1, (8, 8)))))
    for _ in range(chance.choice((1, 1, 2, 10))):
        at, length = chance.randrange(len(data)), chance.randrange(1, 40)
        data[at : at + length] = chance.choice(
            (chance.randbytes(length), b"", b"\r\n", b"--edge\r\n", data[at : at + 4] * length)
        )
    return Sent(bytes(data), may_lack=True)


def wrong_length(chance: random.Random) -> Sent:
    body, kind = with_image(image_bytes(2, (8, 8)))
    length = chance.choice((0, 1, len(body) - 5, len(body) + 5, "-1", "1e3", "x", 2**70, f"{len(body)}, 3", ""))
    return Sent(request("POST", "/api/test_image", body, kind, Content_Length=length), may_lack=True)


def large_body(chance: random.Random) -> Sent:
    """More than is allowed, said or not, ending or not."""
    body, kind = with_image(bytes(ENDLESS_BYTES))
    if chance.random() < 0.5:
        return Sent(request("POST", "/api/test_image", body, kind))
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    head = b"POST /api/test_image HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    return Sent(head + f"Content-Type: {kind}\r\n\r\n".encode() + chunk * (ENDLESS_BYTES >> 20))


def odd_value(chance: random.Random) -> Sent:
    body = json.dumps(chance.choice(ODD_VALUES)).encode() if chance.random() < 0.7 else chance.choice(ODD_TEXTS)
    # A threshold is never set to a number: later images would be judged by it, but not scored otherwise.
    return Sent(request(*chance.choice((("PUT", "/api/threshold"), ("POST", "/api/load_model"))), body))


def odd_path(chance: random.Random) -> Sent:
    method = chance.choice(("GET", "GET", "GET", "HEAD", "DELETE", "PUT", "OPTIONS", "TRACE", "BREW"))
    return Sent(request(method, chance.choice(ODD_PATHS)), may_lack=True)


def odd_head(chance: random.Random) -> Sent:
    return Sent(
        chance.choice(
            (
                chance.randbytes(chance.randrange(1, 500)),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\n\r\n",
                b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
                request("GET", "/api/status", Origin="https://localhost"),
                request("GET", "/api/status", Authorization="Bearer \xff"),
                request("GET", "/health", Connection="Upgrade", Upgrade="websocket"),
                request("POST", "/api/test_image", b"5\r\nab", Transfer_Encoding="chunked"),
                request("GET", "/health") * 200,  # all at once
            )
        ),
        may_lack=True,
    )


ABUSES: tuple[Callable[[random.Random], Sent], ...] = (
    *[broken_image] * 6, *[broken_multipart] * 6, *[odd_value] * 4, *[odd_path] * 4, *[odd_head] * 4,
    *[wrong_length] * 3, large_body,
)  # fmt: skip
