"""For whoever runs the service: a line of JSON a request, without any content, and metrics for Prometheus."""

import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("heldout.service")
# A line is about 200 bytes: of one message 2 GB a day, where a flood of requests wrote 129 MB in a minute.
LINES_PER_SECOND, TRACEBACK_LINES = 100, 20
AUDIT_LINE = "audit"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# A client may send any word as the method: labels are made of these alone, else it could fill the memory with them.
METHODS = ("GET", "PUT", "POST", "HEAD", "OPTIONS", "DELETE")
# Set by serve.py where several workers share their metrics; prometheus_client reads it when it is imported.
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


# Of GET /api/watch; what is not known is NaN.
WATCHED = {
    "drift_ks_p_value": "How often chance alone makes scores of accepted images as different as the latest window's.",
    "drift_cusum": "What scores of accepted images went away from the first ones, as a share of where it alarms.",
    "drift": "Whether scores of accepted images have drifted, 0 or 1.",
    "image_drift_ks_p_value": "The same of the distances of accepted images as a whole to the nearest good one.",
    "image_drift_cusum": "The same of those, as a share of where it alarms.",
    "image_drift": "Whether accepted images as a whole have drifted, 0 or 1.",
    "feedback_false_alarm_share": "Images called defective, among those that people called good.",
    "feedback_miss_share": "Images called good, among those that people called defective.",
}


class JsonLines(logging.Formatter):
    """A record as one line of JSON; `extra={"metadata": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "metadata", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class BoundedLines(logging.StreamHandler):
    """Of each message LINES_PER_SECOND at most, a traceback counting as TRACEBACK_LINES; how many more there were is a
    line before the next one. Else whoever may do nothing but ask fills a disk. Entries of the audit log all pass: who
    makes them has a token."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        # By the message before names are put into it, so that none drives out another: second, lines, lines left out.
        self._kinds: dict[str, tuple[int, int, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == AUDIT_LINE:
            super().emit(record)
            return
        now_s, (second, lines, left_out) = int(self._clock()), self._kinds.get(record.msg, (-1, 0, 0))
        if second != now_s:
            self._tell_of(record.msg, left_out)
            lines = left_out = 0
        if lines < LINES_PER_SECOND:
            super().emit(record)
        else:
            left_out += 1
        self._kinds[record.msg] = now_s, lines + (TRACEBACK_LINES if record.exc_info else 1), left_out

    def close(self) -> None:
        for message, (_, _, left_out) in self._kinds.items():
            self._tell_of(message, left_out)
        self._kinds.clear()
        super().close()

    def _tell_of(self, message: str, left_out: int) -> None:
        if left_out:
            said = {"msg": f"{left_out} more lines left out", "metadata": {"of": message}}
            super().emit(
                logging.makeLogRecord({"name": LOG.name, "levelno": logging.WARNING, "levelname": "WARNING"} | said)
            )


def start_logging(level: str = "info") -> None:
    """Everything, uvicorn's words too, as lines of JSON on standard error, at a bounded rate."""
    handler = BoundedLines(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("heldout.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())


class Metrics:
    """What Prometheus asks for."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "heldout_http_requests", "Answered requests.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "heldout_http_request_duration_seconds", "Time to the answer.", ("route",), buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.images = Counter("heldout_images_inspected", "Inspected images.", ("model", "verdict"), registry=registry)
        self.refused_images = Counter(
            "heldout_images_refused", "Images that could not be inspected.", ("status",), registry=registry
        )
        self.camera_problems = Counter(
            "heldout_camera_problems", "Images with which something was wrong before they were judged.",
            ("model", "problem"), registry=registry,
        )  # fmt: skip
        self.watched = {
            name: Gauge(f"heldout_{name}", words, ("model",), multiprocess_mode="mostrecent", registry=registry)
            for name, words in WATCHED.items()
        }
        self.watched_until_s = 0.0  # of time.monotonic(): until then these hold
        self.watched_models: set[str] = set()  # which they are of
        self.batch_size = Histogram(
            "heldout_forward_batch_size", "Images in a forward pass.", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )  # fmt: skip
        self.in_progress = Gauge(
            "heldout_images_in_progress", "Images accepted and not answered yet.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip

    def text(self) -> tuple[bytes, str]:
        """Of all workers, and its media type."""
        registry = self.registry
        if os.environ.get(MULTIPROCESS_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST


class Monitoring:
    """Outermost middleware: gives each request an id, logs and counts it, and logs what went wrong with it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, start_s, status, is_complete = secrets.token_hex(8), time.perf_counter(), 0, False

        async def observed(message: Message) -> None:
            nonlocal status, is_complete
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, observed)
        except Exception:
            LOG.exception("a fault of the service", extra={"metadata": {"request": request_id}})
            if not is_complete:
                raise  # so that the connection is cut
        finally:
            seconds = time.perf_counter() - start_s
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            metadata = {"request": request_id, "method": method, "route": route, "status": status}
            LOG.info("request", extra={"metadata": metadata | {"milliseconds": round(1e3 * seconds, 2)}})
