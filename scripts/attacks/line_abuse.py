"""The requests that no client means, sent to the HTTP of a line: none is answered by a fault of it, and afterwards it
judges a pushed image as before."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from scripts.attacks.hostile_images import spoiled_image
from scripts.attacks.http_abuse import ODD_VALUES, HttpAbuse, Sent, request
from scripts.attacks.material import REPOSITORY, Material
from scripts.attacks.serving import Serving, end, wait_until_healthy

PUSHED, CALLED = "/api/stations/pushed/parts", "/api/stations/called/trigger"
IMAGES_OF_A_SERVICE = b"/api/test_image"


class LineAbuse(HttpAbuse):
    """One try is what it is at a service, of one line."""

    score = "score"

    def _start(self) -> None:
        folder = self._material.folder / "line"
        self._serving = self._open.enter_context(line_served(self._material, folder))
        self._tries = self._bytes_when_warm = 0

    def drawn_body(self, chance: random.Random) -> Sent:
        """An image that is none, or a call for a part with an odd name."""
        if chance.random() < 0.5:
            return Sent(request("POST", PUSHED, spoiled_image(chance).data, "image/png"))
        return Sent(request("POST", CALLED, json.dumps(chance.choice(ODD_VALUES)).encode()), may_lack=True)

    def aimed(self, sent: Sent) -> Sent:
        return sent._replace(data=sent.data.replace(IMAGES_OF_A_SERVICE, PUSHED.encode()))


class ServingLine(Serving):
    """A started line, which answers an image with its signal."""

    def test(self, data: bytes, name: str = "image.png", **fields: object) -> httpx.Response:
        return self.client.post(PUSHED, params={"name": name}, content=data)


@contextmanager
def line_served(material: Material, folder: Path) -> Iterator[ServingLine]:
    """A line of two stations, to which images are pushed, and which is called; stopped at the end if it still runs.
    Raises RuntimeError where it does not start."""
    folder.mkdir(exist_ok=True)
    good = material.data / "hazelnut" / "test" / "good"
    stations = [
        {"name": "pushed", "budget_ms": 60_000, "source": {"type": "push", "max_image_mb": 4}},
        {"name": "called", "budget_ms": 60_000, "trigger": {"type": "call"},
         "source": {"type": "replay", "path": str(good), "rate": 5, "loops": 0}},
    ]  # fmt: skip
    config = {"models": str(material.judging), "state": str(folder / "state"), "threads": 1, "device": "cpu", "port": 0,
              "stations": stations}  # fmt: skip
    (folder / "line.yaml").write_text(json.dumps(config))
    words = (sys.executable, REPOSITORY / "downstream/line.py", "--config", folder / "line.yaml")
    environment = {name: value for name, value in os.environ.items() if name != "HELDOUT_TOKEN"}
    log = folder / "log.txt"
    with open(log, "w") as errors:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        url = next((line.split()[1] for line in process.stdout if line.startswith("line: ")), None)
        if url is None:
            raise RuntimeError(f"the line did not start: {log.read_text()}")
        serving = ServingLine(process, url, log, None)
        with serving.client:
            wait_until_healthy(serving)
            yield serving
    finally:
        end(process)
