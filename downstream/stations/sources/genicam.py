"""An industrial camera by GenICam. Its producer is its vendor's native code, and runs in a process of its own.

What a producer brings down, or hangs in, is that process alone (camera.py): the station's supervisor then makes another
one. The process ends when its standard input does, so with the line, however that ends, and gives the camera back.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from downstream.stations.contract import Frame, Source, Surroundings
from downstream.stations.sources.config import GenICam
from pretrain.command import UserError

ROOT = Path(__file__).resolve().parents[3]
CAMERA = "from downstream.stations.sources.camera import main; main()"
# What the process says: a frame; that the camera was lost; that it is not as it was told to be; or, asked for a check
# alone, that all is well. Then the moment of `time.monotonic`, which all processes share, bytes, height and width.
FRAME, LOST, REFUSED, WELL = b"F", b"L", b"R", b"W"
HEAD = struct.Struct("=cdQII")
MAX_BYTES = 1 << 31
# To give its camera back a process has so long.
END_S = 3.0


class Said(NamedTuple):
    """One message; a text, or pixels."""

    kind: bytes
    moment_s: float
    data: np.ndarray

    def text(self) -> str:
        return self.data.tobytes().decode(errors="replace")


class Process(NamedTuple):
    """One that has a camera: what it is told, and what it says."""

    process: subprocess.Popen
    told: IO[bytes]
    said: RawIOBase

    def read(self) -> Said | None:
        """The next message; none where the process has ended."""
        if (head := self._bytes(HEAD.size)) is None:
            return None
        kind, moment_s, size, height, width = HEAD.unpack(head)
        if size > MAX_BYTES or (data := self._bytes(size)) is None:
            return None
        values = np.frombuffer(data, np.uint8)
        return Said(kind, moment_s, values.reshape(height, width, 3) if kind == FRAME else values)

    def end(self) -> int:
        """Its exit code, soon."""
        for pipe in (self.said, self.told):
            with suppress(OSError):
                pipe.close()
        try:
            return self.process.wait(END_S + 1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _bytes(self, count: int) -> bytearray | None:
        """So many; none where there are fewer."""
        data = bytearray(count)
        left = memoryview(data)
        while left:
            if not (read := self.said.readinto(left)):
                return None
            left = left[read:]
        return data


class GenICamSource(Source):
    """Fulfills the contract. A camera that is lost ends `frames()` by an error: another process finds it again."""

    gives_pixels = True

    def __init__(self, options: GenICam, surroundings: Surroundings) -> None:
        self.options, self._stopped = options, False
        self._lock = threading.Lock()
        self._camera: Process | None = None

    def frames(self) -> Iterator[Frame]:
        with self._lock:
            if self._stopped:
                return
            camera = self._camera = started(self.options)
        number, said = 0, None
        try:
            while (said := camera.read()) is not None and said.kind == FRAME:
                number += 1
                yield Frame(f"frame {number}", min(said.moment_s, time.monotonic()), pixels=said.data)
        finally:
            code = camera.end()
        if not self._stopped:
            raise _error(said, code)

    @staticmethod
    def what_is_missing(options: Any) -> str | None:
        camera = started(options, is_check=True)
        try:
            said = camera.read()
        finally:
            code = camera.end()
        return None if said is not None and said.kind == WELL else str(_error(said, code))

    def stop(self) -> None:
        with self._lock:
            self._stopped, camera = True, self._camera
        if camera is not None:
            with suppress(OSError):
                camera.told.close()
            killing = threading.Timer(END_S + 1, camera.process.kill)  # one that was halted, say, ends itself no more
            killing.daemon = True
            killing.start()


def started(options: GenICam, is_check: bool = False) -> Process:
    """A process that opens the camera, and says what comes of it. Of a group of its own: Ctrl-C is for the line."""
    told = {"producers": [str(path) for path in options.producers()], "wanted": options.wanted(), "is_check": is_check,
            "features": options.features, "timeout_s": options.timeout_s}  # fmt: skip
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen([sys.executable, "-c", CAMERA], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                               pipesize=1 << 18, env=environment, process_group=0)  # fmt: skip
    assert process.stdin is not None and isinstance(process.stdout, RawIOBase)
    with suppress(OSError):  # it has ended already
        process.stdin.write(json.dumps(told).encode() + b"\n")
    return Process(process, process.stdin, process.stdout)


def _error(said: Said | None, code: int) -> Exception:
    if said is not None and said.kind == REFUSED:
        return UserError(said.text())
    if said is not None and said.kind == LOST:
        return ConnectionError(said.text())
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ConnectionError(f"the process of its producer ended ({ended})")
