"""Contestants that are processes of their own: ours, and other libraries in an environment that is made once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain.command import UserError
from pretrain.data.cache import cache_root

CONTESTANTS = Path(__file__).resolve().parent / "contestants"


def peer_python(name: str, *requirements: str) -> Path:
    """The Python of a virtual environment that has these requirements and nothing of ours, made once beside the cache;
    what a second benchmark needs on top is added to it."""
    folder = cache_root() / "peers" / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    missing = sorted({*requirements} - {*(done.read_text().splitlines() if done.exists() else ())})
    if missing:
        print(f"installing {', '.join(missing)} into {folder}, once (minutes, some GB)", file=sys.stderr, flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *missing], check=True)
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"{', '.join(missing)} could not be installed ({error}); give a --peer-python that has them."
            ) from None
        with open(done, "a") as file:
            file.writelines(f"{each}\n" for each in missing)
    return python


class Contestant:
    """A process that does one task at a time; contestants/protocol.py is its other end."""

    def __init__(self, command: list) -> None:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def do(self, task: str, **arguments: object) -> dict:
        """What it answers: seconds, CPU seconds, peak memory, scores."""
        self.process.stdin.write(json.dumps({"do": task, **arguments}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(
            f"{self.process.args[1]} stopped with exit code {self.process.wait()}: run it by hand to see why."
        )


@contextmanager
def started(command: list) -> Iterator[Contestant]:
    contestant = Contestant(command)
    try:
        yield contestant
    finally:
        contestant.process.kill()
        contestant.process.communicate()
