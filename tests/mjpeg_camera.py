"""A camera of the tests' own: MJPEG over HTTP, as many IP cameras have it, with a plug that can be pulled.

`python mjpeg_camera.py FILE PORT` is one that can be killed: it shows the JPEG that is in the file just now.
"""

import signal
import socket
import sys
import time
from base64 import b64encode
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from plug import Plugged


class MjpegCamera(Plugged):
    """At `url`. `pixels` is what it shows; `rate` frames a second. With `login`, as `user:password`, others get 401."""

    def __init__(self, pixels: np.ndarray, rate: float = 30.0, login: str | None = None, port: int = 0) -> None:
        self.pixels, self.rate, self.is_hanging = pixels, rate, False
        self._login = login and f"Basic {b64encode(login.encode()).decode()}"
        super().__init__(port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(4096)
            if self._login and f"authorization: {self._login}".lower() not in asked.decode().lower():
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"
                                   b'WWW-Authenticate: Basic realm="camera"\r\n\r\n')  # fmt: skip
                connection.close()
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
            while True:
                if not self.is_hanging:
                    data = self._jpeg()
                    head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    connection.sendall(head.encode() + data + b"\r\n")
                time.sleep(1 / self.rate)

    def _jpeg(self) -> bytes:
        written = BytesIO()
        Image.fromarray(self.pixels).save(written, "JPEG", quality=95)
        return written.getvalue()


class FileCamera(MjpegCamera):
    """Shows what is in a file."""

    def __init__(self, file: Path, port: int, rate: float = 20.0) -> None:
        self._file = file
        super().__init__(np.empty(0), rate, port=port)

    def _jpeg(self) -> bytes:
        return self._file.read_bytes()


if __name__ == "__main__":
    FileCamera(Path(sys.argv[1]), int(sys.argv[2]))
    signal.pause()
