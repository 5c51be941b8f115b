"""The service as one ASGI application: endpoints, page, limits, and what a fault looks like from outside."""

import json
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from downstream.service.access import Access
from downstream.service.batching import Busy
from downstream.service.decoding import Refused
from downstream.service.limits import BodyLimits
from downstream.service.models import NoSuchModel
from downstream.service.monitoring import Watch, start_logging
from downstream.service.openapi import with_examples
from downstream.service.routes import API
from downstream.service.schemas import own_version
from downstream.service.service import Service, Settings
from pretrain.command import UserError

# Where a worker process finds its settings: it is started with nothing but a name to import.
ENVIRONMENT = "HELDOUT_SERVICE"
WEB = Path(__file__).with_name("web")
# Beside the images that wait, so many requests may be on their way in or out.
REQUESTS_BESIDE = 64
# Of all bodies on their way in; beyond 1 MiB a part of one lies in a temporary file.
BODY_BYTES_AT_ONCE = 1 << 30
# So many of the largest images make the largest request.
IMAGES_OF_FULL_SIZE = 4


def make_app(settings: Settings) -> ASGIApp:
    """The application; all that can be wrong with its settings is said now. Raises UserError."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="heldout", version=own_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Is this product defective, and where: the models of `downstream/detect.py fit`, over HTTP.",
        exception_handlers=HANDLERS,
    )  # fmt: skip
    app.state.service = service
    plain = app.openapi
    app.openapi = lambda: with_examples(plain())
    app.include_router(API)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    most_bytes = IMAGES_OF_FULL_SIZE * settings.image_bytes + (1 << 20)
    most_at_once, at_once_bytes = settings.waiting + REQUESTS_BESIDE, max(BODY_BYTES_AT_ONCE, 2 * most_bytes)
    guarded = BodyLimits(app, most_bytes, settings.timeout_s, most_at_once, at_once_bytes)
    return Watch(Access(guarded, settings.hosts, settings.token), service)


def app_from_environment() -> ASGIApp:
    """For worker processes. Each ends with the one that started it, also if that is killed and can tell nobody."""
    start_logging()
    threading.Thread(target=_follow_parent, daemon=True).start()
    return make_app(Settings(**json.loads(os.environ[ENVIRONMENT])))


def _follow_parent() -> None:
    if parent_process() is not None:
        parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)


async def _problem(status: int, detail: str, headers: dict | None, _: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": detail or str(error)}, status, headers)


async def _http(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _refused(_: Request, error: Refused) -> JSONResponse:
    return JSONResponse({"detail": f"{error}."}, error.status)


async def _busy(_: Request, error: Busy) -> JSONResponse:
    return JSONResponse({"detail": f"{error}."}, 429, {"Retry-After": str(error.retry_s)})


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Which field and why, without what was in it."""
    reasons = [f"{' '.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(reasons)}, 422)


HANDLERS = {
    HTTPException: _http,
    Refused: _refused,
    Busy: _busy,
    RequestValidationError: _invalid,
    NoSuchModel: partial(_problem, 404, "", None),
    UserError: partial(_problem, 409, "", None),
    TimeoutError: partial(_problem, 503, "the answer took too long: try again.", {"Retry-After": "5"}),
    SQLAlchemyError: partial(_problem, 503, "the database does not answer: try again.", {"Retry-After": "5"}),
    Exception: partial(_problem, 500, "a fault of the service; its log says more.", None),
}
