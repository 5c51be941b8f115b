"""A service in this process, which starts at once: what most tests of answers and pages ask."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import httpx
import uvicorn

from downstream.inspection.inspector import Inspector
from downstream.learning.versions import add_version, changing
from downstream.serve import listen, settings_of
from downstream.service.app import make_app
from downstream.service.config import Config
from downstream.service.monitoring import JsonLines
from downstream.service.service import Service

LOGGERS = ("heldout.service", "uvicorn.error")


class Here(NamedTuple):
    """A service that runs in a thread of this process."""

    service: Service
    url: str
    client: httpx.Client
    said: StringIO

    @property
    def log(self) -> str:
        """What a server of its own would have said on standard error."""
        return self.said.getvalue()

    def test(self, data: bytes, name: str = "image.png", **fields: object) -> httpx.Response:
        return self.client.post("/api/test_image", files={"image": (name, data)}, data=fields)


def add_second_version(model: Path, threshold: float) -> None:
    """Beside the version in use of a model: one that decides by another threshold."""
    learned = Inspector.load(model)
    learned.decide_at(threshold)
    learned.metadata |= {"version": 2, "learned": {"good": 3, "defective": 1}, "made": "2026-01-31T10:00:00"}
    with changing(model):
        add_version(model, 2, learned.fill)


@contextmanager
def logged() -> Iterator[StringIO]:
    """The lines of JSON that `start_logging` would write on standard error."""
    said = StringIO()
    handler, loggers = logging.StreamHandler(said), [logging.getLogger(name) for name in LOGGERS]
    handler.setFormatter(JsonLines())
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def serving_here(models: Path, folder: Path, token: str | None = None, **options: object) -> Iterator[Here]:
    """`options` are those of serve.py, by their names in Config; with `token`, the client sends it. One process decodes
    unless more are asked for: each takes half a second to start, and a test's images wait for none."""
    folder.mkdir(exist_ok=True)
    options = {"decoders": 1, **options}
    if token:
        options["token_file"] = folder / "token.txt"
        options["token_file"].write_text(token)
    config = Config(models=models, results=str(folder / "results.sqlite"), kept_images=folder / "images", **options)
    service = Service(settings_of(config))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with logged() as said, listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(service), lifespan="on", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60, headers=headers, verify=False) as client:
            yield Here(service, url, client, said)
        server.should_exit = True
        thread.join(30)
