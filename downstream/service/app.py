"""The service as one ASGI application: endpoints, page, limits, and what a fault looks like from outside."""

import errno
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
from downstream.service.config import Settings
from downstream.service.database import NO_SPACE, DamagedRow, is_damaged, is_full
from downstream.service.decoding import RefusedImage
from downstream.service.limits import AnswerFirst, BodyLimits
from downstream.service.models import NoSuchModel
from downstream.service.monitoring import LOG, Monitoring, start_logging
from downstream.service.openapi import with_examples
from downstream.service.routes import API
from downstream.service.schemas import own_version
from downstream.service.service import Service
from downstream.service.users import User
from pretrain.command import UserError

# Where a worker process finds its settings: it is started with nothing but a name to import.
ENVIRONMENT = "HELDOUT_SERVICE"
WEB = Path(__file__).with_name("web")
# Beside the images that wait, so many requests may be on their way in or out.
MAX_OTHER_REQUESTS = 64
# Of all bodies on their way in; beyond 1 MiB a part of one lies in a temporary file.
MAX_BODY_BYTES_AT_ONCE = 1 << 30
# The largest request has so many images of the largest size.
MAX_FULL_SIZE_IMAGES = 4
# What is in another user's hands, only to be read, or a file in place of a folder.
IN_THE_WAY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
FULL = "no space is left for results or for kept images, and nothing is answered that is not kept: make room."


def make_app(service: Service) -> ASGIApp:
    """The application around a service. From the network inwards: answers first, metrics, access, limits, endpoints."""
    settings = service.settings

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="heldout", version=own_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Is this product defective, and where: models that `downstream/detect.py fit` made, over HTTP.",
        exception_handlers=HANDLERS,
    )  # fmt: skip
    app.state.service = service
    describe = app.openapi
    app.openapi = lambda: with_examples(describe())
    app.include_router(API)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    max_bytes = MAX_FULL_SIZE_IMAGES * settings.max_image_bytes + (1 << 20)
    max_at_once = settings.max_waiting + MAX_OTHER_REQUESTS
    limited = BodyLimits(app, max_bytes, settings.timeout_s, max_at_once, max(MAX_BODY_BYTES_AT_ONCE, 2 * max_bytes))
    users = [User(*fields) for fields in settings.users]
    access = Access(limited, settings.allowed_hosts, settings.token, users)
    return AnswerFirst(Monitoring(access, service.metrics))


def app_from_environment() -> ASGIApp:
    """For worker processes. Each ends with the one that started it, also if that is killed and can tell nobody."""
    start_logging()
    threading.Thread(target=_follow_parent, daemon=True).start()
    return make_app(Service(Settings(**json.loads(os.environ[ENVIRONMENT])), is_first=False))


def _follow_parent() -> None:
    if parent_process() is not None:
        parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)


async def _error(status: int, detail: str, headers: dict | None, _: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": detail or str(error)}, status, headers)


async def _http_error(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _refused(_: Request, error: RefusedImage) -> JSONResponse:
    return JSONResponse({"detail": f"{error}."}, error.status)


async def _busy(_: Request, error: Busy) -> JSONResponse:
    return JSONResponse({"detail": f"{error}."}, 429, {"Retry-After": str(error.retry_s)})


async def _invalid_fields(_: Request, error: RequestValidationError) -> JSONResponse:
    """Which field and why, without what was in it."""
    reasons = [f"{' '.join(map(str, field['loc'][1:]))}: {field['msg']}" for field in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(reasons)}, 422)


async def _database_failed(_: Request, error: SQLAlchemyError) -> JSONResponse:
    if is_full(error):
        LOG.error(FULL)
        return JSONResponse({"detail": FULL}, 507)
    if is_damaged(error):
        said = str(error) if isinstance(error, DamagedRow) else "the database is damaged"
        LOG.error("the database is damaged", extra={"metadata": {"reason": str(getattr(error, "orig", error))}})
        return JSONResponse({"detail": f"{said}: put a copy in its place."}, 503)
    return JSONResponse({"detail": "the database does not answer: try again."}, 503, {"Retry-After": "5"})


async def _disk_failed(_: Request, error: OSError) -> JSONResponse:
    if error.errno in NO_SPACE:
        LOG.error(FULL)
        return JSONResponse({"detail": FULL}, 507)
    if error.errno not in IN_THE_WAY:
        raise error
    reason = f"{error.filename or 'a file'} cannot be used ({error.strerror}), and nothing is answered that is not kept"
    LOG.error(reason)
    return JSONResponse({"detail": f"{reason}: look at that folder."}, 507)


HANDLERS = {
    HTTPException: _http_error,
    RefusedImage: _refused,
    Busy: _busy,
    RequestValidationError: _invalid_fields,
    NoSuchModel: partial(_error, 404, "", None),
    UserError: partial(_error, 409, "", None),
    TimeoutError: partial(_error, 503, "the answer took too long: try again.", {"Retry-After": "5"}),
    SQLAlchemyError: _database_failed,
    OSError: _disk_failed,
    Exception: partial(_error, 500, "a fault of the service; its log says more.", None),
}
