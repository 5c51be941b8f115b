"""What the one who runs the service sees: a line of JSON a request, without any content, and figures for Prometheus."""

import json
import logging
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from downstream.service.service import Service

LOG = logging.getLogger("heldout.service")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
METHODS = ("GET", "PUT", "POST", "HEAD", "OPTIONS", "DELETE")
# Set by serve.py where several workers share their figures; read by prometheus_client when it is imported.
SHARED = "PROMETHEUS_MULTIPROC_DIR"


class JsonLines(logging.Formatter):
    """A record as one line of JSON; `extra={"metadata": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "metadata", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(level: str = "info") -> None:
    """Everything, uvicorn's words too, as lines of JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("heldout.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())


class Figures:
    """Prometheus's; `inside` counts what was accepted and is not answered."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("heldout_requests", "Answered requests.", ("method", "route", "status"), **own)
        self.seconds = Histogram("heldout_request_seconds", "Time to the answer.", ("route",), buckets=SECONDS, **own)
        self.images = Counter("heldout_images", "Judged images.", ("model", "verdict"), **own)
        self.refused = Counter("heldout_images_refused", "ImageSet that were not judged.", ("status",), **own)
        self.batch = Histogram("heldout_batch_images", "ImageSet a forward.", buckets=(1, 2, 4, 8, 16, 32, 64), **own)
        self.inside = Gauge("heldout_images_inside", "Not answered yet.", multiprocess_mode="livesum", **own)

    def text(self) -> tuple[bytes, str]:
        """Of all workers, and its media type."""
        registry = self.registry
        if os.environ.get(SHARED):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST


class Watch:
    """Outermost middleware: gives each request an id, logs and counts it, and logs what went wrong with it."""

    def __init__(self, app: ASGIApp, service: "Service") -> None:
        self.app, self.service, self.figures = app, service, service.figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, start_s, status, is_whole = secrets.token_hex(8), time.perf_counter(), 0, False

        async def noted(message: Message) -> None:
            nonlocal status, is_whole
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            LOG.exception("a fault of the service", extra={"metadata": {"request": request_id}})
            if not is_whole:
                raise  # so that the connection is cut
        finally:
            seconds = time.perf_counter() - start_s
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.figures.requests.labels(method, route, status).inc()
            self.figures.seconds.labels(route).observe(seconds)
            metadata = {"request": request_id, "method": method, "route": route, "status": status}
            LOG.info("request", extra={"metadata": metadata | {"milliseconds": round(1e3 * seconds, 2)}})
