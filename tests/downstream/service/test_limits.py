"""Bodies that are too large or too slow, and too many at once."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request

from downstream.service.limits import MAX_JSON_BYTES, BodyLimits


def limited(max_bytes=1000, seconds=0.3, max_at_once=2, work_s=0.0, max_bytes_at_once=10_000) -> BodyLimits:
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def count(request: Request) -> int:
        body = await request.body()
        await asyncio.sleep(work_s)
        return len(body)

    return BodyLimits(app, max_bytes, seconds, max_at_once, max_bytes_at_once)


def client(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


async def pieces(count: int, size: int = 100, wait_s: float = 0.0):
    for _ in range(count):
        await asyncio.sleep(wait_s)
        yield b"x" * size


@pytest.mark.parametrize("size", [0, 999, 1000])
def test_what_fits_passes(size):
    async def test():
        async with client(limited()) as ask:
            assert (await ask.post("/", content=b"x" * size)).json() == size
            assert (await ask.post("/", content=pieces(size // 100))).json() == size // 100 * 100

    asyncio.run(test())


def test_a_large_body_is_refused_whether_or_not_it_says_so():
    async def test():
        async with client(limited()) as ask:
            for content in (b"x" * 1001, pieces(11)):
                answer = await ask.post("/", content=content)
                assert answer.status_code == 413
            answer = await ask.post("/", content=b"x" * 2000, headers={"Content-Length": "nonsense"})
            assert answer.status_code == 413

    asyncio.run(test())


@pytest.mark.parametrize(
    ("media_type", "size", "status"),
    [
        ("application/json", MAX_JSON_BYTES, 200), ("application/json", MAX_JSON_BYTES + 1, 413),
        ("", MAX_JSON_BYTES + 1, 413), ("multipart/form-data; boundary=x", 2 * MAX_JSON_BYTES, 200),
    ],
)  # fmt: skip
def test_what_is_parsed_whole_has_a_limit_of_its_own(media_type, size, status):
    async def test():
        async with client(limited(max_bytes=10 * MAX_JSON_BYTES, max_bytes_at_once=100 * MAX_JSON_BYTES)) as ask:
            for content in (b"x" * size, pieces(1, size)):
                assert (
                    await ask.post("/", content=content, headers={"Content-Type": media_type})
                ).status_code == status

    asyncio.run(test())


def test_a_slow_body_is_given_up():
    async def test():
        async with client(limited()) as ask:
            answer = await ask.post("/", content=pieces(8, wait_s=0.1))
            assert answer.status_code == 408

    asyncio.run(test())


def test_slow_work_on_a_quick_body_is_not():
    async def test():
        async with client(limited(seconds=0.2, work_s=0.4)) as ask:
            assert (await ask.post("/", content=b"xyz")).json() == 3

    asyncio.run(test())


def test_too_many_at_once_are_told_to_come_back():
    async def test():
        app = limited(work_s=0.2)
        async with client(app) as ask:
            answers = await asyncio.gather(*(ask.post("/", content=b"x") for _ in range(5)), ask.get("/"))
            statuses = [answer.status_code for answer in answers]
            assert sorted(statuses) == [200] * 3 + [429] * 3 and statuses[-1] == 200
            assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status_code == 429)
            assert app.in_progress == 0 and (await ask.post("/", content=b"x")).json() == 1

    asyncio.run(test())


def test_all_bodies_together_are_bounded():
    async def test():
        app = limited(work_s=0.2, max_at_once=9, max_bytes_at_once=2500)
        async with client(app) as ask:
            answers = await asyncio.gather(*(ask.post("/", content=b"x" * 1000) for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
            assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 429)
            assert app.bytes_in_progress == 0 and (await ask.post("/", content=b"x" * 1000)).json() == 1000

    asyncio.run(test())
