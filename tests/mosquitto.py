"""A real MQTT broker for tests: Debian's mosquitto, on a free port of this machine alone."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from line_here import until


class Mosquitto:
    """Starts with `start()`, on the same port again after `kill()`."""

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._settings, self._config, self._process = settings, folder / "mosquitto.conf", None
        user = ["user root"] if os.getuid() == 0 else []  # whose folder it is
        listens = [f"listener {self.port} 127.0.0.1", f"persistence_location {folder}/"]
        self._config.write_text("\n".join([*user, *listens, *settings]))

    def start(self) -> None:
        # Debian puts it where only root looks.
        path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen(
            [path, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def save(self) -> None:
        """Write who has subscribed, where a setting says `persistence true`: it is there after a kill too."""
        file = self._config.with_name("mosquitto.db")
        self._process.send_signal(signal.SIGUSR1)
        until(file.exists)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "mosquitto did not start"
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def mosquitto(folder: Path, settings: Sequence[str] = ("allow_anonymous true",)) -> Iterator[Mosquitto]:
    """Where none is installed, the test is skipped and says so; in CI, which installs one, it fails."""
    if shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").is_file():
        reason = "mosquitto is not installed, so MQTT is NOT tested here; on Debian: apt install mosquitto"
        if os.environ.get("HELDOUT_REQUIRE_MOSQUITTO"):
            pytest.fail(reason)
        pytest.skip(reason)
    broker = Mosquitto(folder, settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
