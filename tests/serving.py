"""A real server for tests: the command in a process of its own, on a free port; and a real PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

START_S = 90


class Serving:
    """A started server: `client` asks it, `log` is all that it said on standard error, `folder` what it keeps."""

    def __init__(self, process: subprocess.Popen, url: str, log: Path, token: str | None) -> None:
        self.process, self.url, self.folder, self._log = process, url, log.parent, log
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=url, timeout=60, headers=headers, verify=False)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def test(self, data: bytes, name: str = "image.png", **fields: object) -> httpx.Response:
        return self.client.post("/api/test_image", files={"image": (name, data)}, data=fields)

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


@contextmanager
def served(models: Path, folder: Path, *options: object, token: str | None = None) -> Iterator[Serving]:
    """`downstream/serve.py` on `models`, with its results in `folder`; stopped at the end if it still runs."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, REPOSITORY / "downstream/serve.py", "--models", models, "--port", "0",
               "--kept-images", folder / "images"]  # fmt: skip
    if "--results" not in options:
        command += ["--results", folder / "results.sqlite"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("HELDOUT_TOKEN", None)
    if token:
        environment["HELDOUT_TOKEN"] = token
    log = folder / f"log-{time.monotonic_ns()}.txt"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            list(map(str, [*command, *options])), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    # Also if the server says nothing and does not end: then the test fails instead of waiting for ever.
    overdue = threading.Timer(START_S, process.kill)
    overdue.start()
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("serving: "):
                break
        else:
            pytest.fail(f"the server did not start: {''.join(said)}{log.read_text()}")
        serving = Serving(process, line.split()[1], log, token)
        wait_until_healthy(serving)
        overdue.cancel()
        yield serving
        serving.client.close()
    finally:
        overdue.cancel()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


def wait_until_healthy(serving: Serving) -> None:
    for _ in range(START_S * 10):
        try:
            if serving.client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if serving.process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the server is not healthy: {serving.log}")


def image_bytes(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """A noisy image's file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL that was started for this test and has nothing in it. Where none is installed, the test
    is skipped and says so; in CI, which installs one, it fails."""
    initdb = program("initdb")
    if initdb is None:
        reason = "PostgreSQL is not installed, so results in it are NOT tested here; on Debian: apt install postgresql"
        if os.environ.get("HELDOUT_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder.mkdir(parents=True)
    data, user = folder / "data", None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next(name for name in ("postgres", "nobody") if has_user(name))
        shutil.chown(folder, user)
        for parent in folder.parents:  # the way to it must be open to that user
            if parent.stat().st_uid == 0 and parent != Path("/tmp") and parent.is_relative_to("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"check": True, "capture_output": True, "user": user, "cwd": folder}
    subprocess.run([initdb, "-D", data, "-U", "heldout", "--auth=trust", "--no-sync"], **options)
    server = subprocess.Popen(
        [program("postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=folder,
    )  # fmt: skip
    try:
        wait_for_port(port, server)
        yield f"postgresql://heldout@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # ends without waiting for its clients
        server.wait(30)


def program(name: str) -> str | None:
    """Of PostgreSQL, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    import psycopg

    for _ in range(300):
        try:
            psycopg.connect(f"postgresql://heldout@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not start")
