"""Who is let in."""

import asyncio
from hashlib import sha256

import httpx
import pytest
from starlette.responses import PlainTextResponse

from downstream.service.access import HEADERS, LOOPBACK_NAMES, Access, is_loopback
from downstream.service.users import User

TOKEN = "0123456789abcdef"


def ask(
    path: str, *, hosts=LOOPBACK_NAMES, token=None, users=(), host="localhost:5000", scheme="http", **headers: str
) -> httpx.Response:
    async def asked():
        transport = httpx.ASGITransport(Access(PlainTextResponse("in"), hosts, token, users))
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://x") as client:
            return await client.get(path, headers={"Host": host, **headers})

    return asyncio.run(asked())


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:80", "[::1]:5000", "LOCALHOST"])
def test_this_machine_is_let_in(host):
    assert ask("/api/status", host=host).text == "in"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]"])
def test_a_name_that_was_pointed_here_is_not(host):
    assert ask("/api/status", host=host).status_code == 400


def test_named_hosts_and_any():
    assert ask("/", hosts=("line.example",), host="line.example:80").text == "in"
    assert ask("/", hosts=("*",), host="whatever").text == "in"


def test_pages_of_other_sites_may_not_ask():
    assert ask("/api/status", Origin="http://evil.example").status_code == 403
    assert ask("/api/status", Origin="null").status_code == 403
    assert ask("/api/status", Origin="http://localhost:8080").status_code == 403
    assert ask("/api/status", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ask("/api/status", Origin="https://localhost:5000").status_code == 403
    assert ask("/api/status", Origin="http://localhost:5000").text == "in"
    assert ask("/", **{"Sec-Fetch-Site": "cross-site"}).text == "in"  # a link to the page is fine


def test_a_web_server_with_tls_may_stand_before_it():
    named = {"hosts": ("line.example",), "host": "line.example"}
    for scheme, status in (("https", 200), ("http", 200), ("chrome-extension", 403)):
        assert ask("/api/status", **named, Origin=f"{scheme}://line.example").status_code == status
    assert ask("/api/status", scheme="https", Origin="https://localhost:5000").text == "in"  # uvicorn was told
    assert ask("/api/status", scheme="https", Origin="http://localhost:5000").status_code == 403


def test_an_empty_token_is_nobodys():
    nobody = User("ada", "engineer", sha256(b"").hexdigest())
    assert ask("/api/status", users=[nobody], Authorization="Bearer ").status_code == 401


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_nothing_is_told(given):
    for path in ("/api/status", "/metrics", "/openapi.json", "/api/images/kept/x"):
        answer = ask(path, token=TOKEN, Authorization=given.encode("latin-1"))
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_the_page_and_health():
    assert ask("/api/status", token=TOKEN, Authorization=f"Bearer {TOKEN}").text == "in"
    for path in ("/", "/app.js", "/health", "/api/health"):
        assert ask(path, token=TOKEN).text == "in"


def test_every_answer_tells_browsers_to_be_strict():
    for answer in (ask("/"), ask("/api/status"), ask("/", host="evil.example")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    assert ask("/api/status").headers["Cache-Control"] == "no-store"
    assert not any(name.startswith("access-control") for name in ask("/api/status").headers)


def test_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
