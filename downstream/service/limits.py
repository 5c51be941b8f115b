"""What a request may cost before anybody looks at it: bytes of its body, time to send it, how many at once."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_FOR_THE_REST = 10.0
# What is no form is read whole and parsed as JSON before anybody counts what is in it: marks of as many points as
# feedback may have (schemas.py), written with all their digits, take less than half of this.
MAX_JSON_BYTES = 2 << 20


class AnswerFirst:
    """Middleware: an answer goes out whole before the rest of its request's body is read and thrown away. Where the
    server closes the connection after the answer, a client that still sends would find that instead of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False

        async def received() -> Message:
            nonlocal is_over
            message = await receive()
            is_over = not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if is_over or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_FOR_THE_REST):
                    while not is_over:
                        await received()
            await send({"type": "http.response.body"})

        await self.app(scope, received, sent)


def is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")


class BodyLimits:
    """Middleware: 413 for a body of more than `max_bytes`, or of more than MAX_JSON_BYTES where it is none that
    `has_images`, by default no form; 408 for one that takes longer than `seconds`; and 429 for more than `max_at_once`
    requests with a body at a time, or more than `max_bytes_at_once` in all their bodies."""

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        seconds: float,
        max_at_once: int,
        max_bytes_at_once: int,
        has_images: Callable[[Scope], bool] = is_form,
    ) -> None:
        self.app, self.max_bytes, self.seconds, self.max_at_once = app, max_bytes, seconds, max_at_once
        self.max_bytes_at_once, self.has_images = max_bytes_at_once, has_images
        self.in_progress = self.bytes_in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        problem = None
        max_bytes = self.max_bytes if self.has_images(scope) else min(self.max_bytes, MAX_JSON_BYTES)
        if self.in_progress >= self.max_at_once:
            problem = JSONResponse({"detail": "too many requests at once: try again."}, 429, {"Retry-After": "1"})
        elif _declared_bytes(scope) > max_bytes:
            problem = JSONResponse({"detail": _too_large(max_bytes)}, 413)
        if problem is not None:
            await problem(scope, receive, send)
            return
        self.in_progress += 1
        body = _Body()
        try:
            await self.app(scope, self._counted(receive, body, max_bytes), send)
        finally:
            self.in_progress -= 1
            self.bytes_in_progress -= body.count

    def _counted(self, receive: Receive, body: "_Body", max_bytes: int) -> Receive:
        is_over, end_s = False, time.monotonic() + self.seconds

        async def counted() -> Message:
            nonlocal is_over
            if is_over:  # only whether the client went away is asked for now
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.001, end_s - time.monotonic()))
            except TimeoutError:
                reason = f"the body took longer than {self.seconds:g} s."
                raise HTTPException(408, reason, {"Connection": "close"}) from None
            size = len(message.get("body", b""))
            body.count += size
            self.bytes_in_progress += size
            is_over = not message.get("more_body", False)
            if body.count > max_bytes:
                raise HTTPException(413, _too_large(max_bytes))
            if self.bytes_in_progress > self.max_bytes_at_once:
                raise HTTPException(429, "too much at once: try again.", {"Retry-After": "1"})
            return message

        return counted


@dataclass
class _Body:
    """What came of one so far."""

    count: int = 0


def _too_large(max_bytes: int) -> str:
    return f"a request may have {max_bytes / 2**20:g} MiB at most."


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
