"""A word to another program when something is wrong: one POST of JSON, now and then, and never in the way."""

import json
import queue
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

from downstream.service.monitoring import LOG

# Of each kind, so that a dark camera is one message and not one for every image.
QUIET_S = 600
TIMEOUT_S = 5
# What waits while the other end is slow; more is dropped, since it would be old when it came.
MAX_WAITING = 20


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes an answer that sends elsewhere for none: what is posted goes to the host that was named, and no other."""

    def redirect_request(self, *_: object) -> None:
        return None


class Webhook:
    """Of one worker. Posts to `url` from a thread of its own; without a URL it does nothing."""

    def __init__(self, url: str | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._url, self._now_s = url, now_s
        self._last_s: dict[tuple[str, str], float] = {}
        self._waiting: queue.Queue[dict | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhook")
        if url:
            self._thread.start()

    def tell(self, kind: str, model: str, words: str, created: str) -> bool:
        """Whether it is sent: not if the same was said a while ago."""
        last_s = self._last_s.get((kind, model))
        if not self._url or (last_s is not None and self._now_s() - last_s < QUIET_S):
            return False
        self._last_s[kind, model] = self._now_s()
        try:
            self._waiting.put_nowait({"kind": kind, "model": model, "words": words, "at": created})
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """After what waits was sent, or given up."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        opener = urllib.request.build_opener(NoRedirect)
        while (message := self._waiting.get()) is not None:
            body = json.dumps(message).encode()
            asked = urllib.request.Request(self._url, body, {"Content-Type": "application/json"}, method="POST")
            try:
                with opener.open(asked, timeout=TIMEOUT_S):
                    pass
            except (OSError, ValueError, HTTPException) as error:  # without its address, which may hold a secret
                LOG.warning("the webhook does not answer", extra={"metadata": {"reason": type(error).__name__}})
