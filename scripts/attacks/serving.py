"""A real service, in a process of its own on a free port; what asks it; and a PostgreSQL that may be killed."""

import math
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from scripts.attacks.material import REPOSITORY

PROGRAM = (sys.executable, REPOSITORY / "downstream/serve.py")
START_S = 300  # on a machine that is busy with other things


class Serving:
    """A started server: `client` asks it, `log` is all that it said on standard error, `folder` what it keeps."""

    def __init__(self, process: subprocess.Popen, url: str, log: Path, token: str | None) -> None:
        self.process, self.url, self.folder, self._log = process, url, log.parent, log
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # To read certificates takes longer than to ask.
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
def served(
    models: Path, folder: Path, *options: object, token: str | None = None, program: Sequence = PROGRAM
) -> Iterator[Serving]:
    """`downstream/serve.py`, or another `program` that serves, on `models`, with its results in `folder`; stopped at
    the end if it still runs. Raises RuntimeError where it does not start."""
    folder.mkdir(exist_ok=True)
    command = [*program, "--models", models, "--port", "0", "--kept-images", folder / "images"]
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
    # Also if the server says nothing and does not end: then it is given up instead of waited for without end.
    overdue = threading.Timer(START_S, process.kill)
    overdue.start()
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("serving: "):
                break
        else:
            raise RuntimeError(f"the server did not start: {''.join(said)}{log.read_text()}")
        serving = Serving(process, line.split()[1], log, token)
        with serving.client:  # closed after a failure too: its sockets would fail whichever test runs next
            wait_until_healthy(serving)
            overdue.cancel()
            yield serving
    finally:
        overdue.cancel()
        end(process)


def end(process: subprocess.Popen) -> None:
    """By SIGTERM, and what does not end in time by SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()


def wait_until_healthy(serving: Serving, seconds: float = START_S) -> None:
    """Raises RuntimeError where it is not in time."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and serving.process.poll() is None:
        with suppress(httpx.TransportError):
            if serving.client.get("/health").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server is not healthy: {serving.log[-2000:]}")


def another_score(first: float, now: float) -> str | None:
    """What to say where an image is answered otherwise than at first. Images that come at once are one batch, and its
    sums round otherwise than those of an image alone."""
    if math.isclose(first, now, rel_tol=1e-5):
        return None
    return f"an image that was answered {first} is now answered {now}"


def image_bytes(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """A noisy image's file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class Posts:
    """What clients that post one image after the other were answered: `ids` of results, and every `status`. Where
    nobody answered, they try again."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.statuses: set[int] = set()


@contextmanager
def posting(url: str, clients: int = 4) -> Iterator[Posts]:
    """Clients that post as long as this is open."""
    posts, is_over = Posts(), threading.Event()

    def post(number: int) -> None:
        image = image_bytes(number)
        with httpx.Client(base_url=url, timeout=60, verify=False) as client:
            while not is_over.is_set():
                try:
                    answer = client.post("/api/test_image", files={"image": ("image.png", image)})
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                posts.statuses.add(answer.status_code)
                if answer.status_code == 200:
                    posts.ids.add(answer.json()["id"])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield posts
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


class Postgres:
    """A PostgreSQL with nothing in it, in a folder of its own, at `url`. It runs from `start` to `kill` or `stop`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._user = folder, None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = next(name for name in ("postgres", "nobody") if _has_user(name))
            shutil.chown(folder, self._user)
            for parent in folder.parents:  # the way to it must be open to that user
                if parent.stat().st_uid == 0 and parent != Path("/tmp") and parent.is_relative_to("/tmp"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://heldout@127.0.0.1:{self._port}/postgres"
        # Segments of 1 MB, not 16: it then fits on a small disk.
        command = [program("initdb"), "-D", folder / "data", "-U", "heldout", "--auth=trust", "--no-sync"]
        subprocess.run(
            [*command, "--wal-segsize=1"], check=True, capture_output=True, user=self._user, cwd=folder
        )  # fmt: skip

    def start(self) -> None:
        """Raises RuntimeError where it does not start."""
        import psycopg  # optional: the extra `postgres`

        end_s = time.monotonic() + START_S
        self._spawn()
        while time.monotonic() < end_s:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
                if not self.is_running:  # processes of one that was killed hold its memory until they notice
                    self._spawn()
        raise RuntimeError("PostgreSQL did not start")

    def _spawn(self) -> None:
        self._server = subprocess.Popen(
            [program("postgres"), "-D", self._folder / "data", "-p", str(self._port), "-h", "127.0.0.1",
             "-k", self._folder, "-F"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=self._user, cwd=self._folder,
            start_new_session=True,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self._server.poll() is None

    def kill(self) -> None:
        """It and all its processes, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # ends without waiting for its clients
        self._server.wait(30)


def program(name: str) -> str | None:
    """Of PostgreSQL, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """The folder holds so much and no more while this is open. Raises OSError where nothing may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "heldout-small", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    if mounted.returncode:
        raise OSError(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room that was left."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return filler
