"""Who sends half a request, or opens one connection after the other, keeps nobody else from an answer."""

import resource
import socket
import threading
import time

import pytest
import uvicorn

from downstream.service import connections, limits
from downstream.service.connections import BoundedConnection, max_connections
from downstream.service.limits import AnswerFirst

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LIMIT = 4


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def connect(monkeypatch):
    """Opens connections to a server that waits half a second for a head, and serves four."""
    monkeypatch.setattr(connections, "SECONDS_FOR_A_HEAD", 0.5)
    monkeypatch.setattr(BoundedConnection, "limit", LIMIT)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(AnswerFirst(app), http=BoundedConnection, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    opened = []

    def connection():
        opened.append(socket.create_connection(listening.getsockname(), timeout=10))
        return opened[-1]

    yield connection
    for one in opened:
        one.close()
    server.should_exit = True
    thread.join()
    listening.close()


def is_answered(connection, rest: bytes = b"\r\n") -> bool:
    connection.sendall(rest)
    answer = b""
    while not answer.endswith(b"ok"):
        answer += connection.recv(1000) or b"closed ok"
    return b"200 OK" in answer


def is_closed(connection) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"G", HEAD])
def test_half_a_head_is_waited_for_and_then_no_more(sent, connect):
    begun_s, connection = time.monotonic(), connect()
    connection.sendall(sent)
    assert is_closed(connection) and time.monotonic() - begun_s > 0.4


def test_a_slow_head_that_comes_in_time_is_answered(connect):
    connection = connect()
    connection.sendall(HEAD)
    time.sleep(0.3)
    assert is_answered(connection)


def test_the_next_request_of_a_connection_has_its_own_time(connect):
    connection = connect()
    for _ in range(2):
        connection.sendall(HEAD)
        assert is_answered(connection)
        time.sleep(0.6)  # longer than a head may take: nothing was begun
    connection.sendall(HEAD)
    assert is_closed(connection)


@pytest.mark.parametrize("kept", [b"keep-alive", b"close"])
def test_who_still_sends_a_large_body_gets_to_read_the_answer(kept, connect, monkeypatch):
    for module, name in ((connections, "SECONDS_FOR_A_HEAD"), (limits, "SECONDS_FOR_THE_REST")):
        monkeypatch.setattr(module, name, 60)  # however slow this machine is
    connection, size = connect(), 80 << 20
    connection.sendall(HEAD + b"Connection: %s\r\nContent-Length: %d\r\n\r\n" % (kept, size))
    assert is_answered(connection, bytes(size))
    if kept == b"keep-alive":
        assert is_answered(connection, HEAD + b"\r\n")


def test_a_body_that_goes_on_after_its_answer_is_borne_with_for_a_while(connect, monkeypatch):
    monkeypatch.setattr(limits, "SECONDS_FOR_THE_REST", 0.5)
    connection = connect()
    assert is_answered(connection, HEAD + b"Content-Length: 1000000000000\r\n\r\n")
    begun_s = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while time.monotonic() - begun_s < 10:
            connection.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - begun_s > 0.4


def test_of_too_many_the_one_that_waited_longest_makes_room(connect):
    waiting = []
    for _ in range(LIMIT):
        waiting.append(connect())
        time.sleep(0.03)
    later = connect()
    assert is_closed(waiting[0])
    for one in (later, waiting[-1]):
        one.sendall(HEAD)
        assert is_answered(one)


def test_a_connection_with_a_request_never_makes_room(connect):
    first = [connect() for _ in range(LIMIT)]
    for one in first:
        one.sendall(HEAD)
        assert is_answered(one)
    assert is_closed(connect())  # nobody but itself waits for a head
    first[0].sendall(HEAD)
    assert is_answered(first[0])


def test_half_of_the_descriptors_are_left_for_other_things(monkeypatch):
    for descriptors, expected in ((128, 64), (1024, 512), (1 << 20, 1000), (1, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, n=descriptors: (n, n))
        assert max_connections() == expected
