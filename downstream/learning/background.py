"""Learning in a process of its own, one at a time, which whoever knows its folder can look at.

    FOLDER/status.json       what it says of itself, written whole at every step
    FOLDER/feedback.jsonl    what it learns from
    FOLDER/lock              held by whoever started it, and by the system freed when that one dies, as it does then too

Killed at whatever step it leaves the version in use as it was (versions.py); what it said last is then told as such.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from filelock import FileLock, Timeout

from downstream.learning.candidate import STEPS, learn
from downstream.learning.feedback import read_feedback
from pretrain.command import UserError
from pretrain.files import write_json, write_whole
from pretrain.reading import read_json

STATUS, RECORDS, LOCK = "status.json", "feedback.jsonl", "lock"
# What asks whether somebody learns holds the lock for a moment too.
ASKED_S = 5
# Images are judged meanwhile, and come first.
NICENESS = 10


class Status(NamedTuple):
    """How learning goes, or went last: `step` of STEPS while it runs, the number of the `version` that came of it, or
    the `reason` why none did. Moments are UTC."""

    state: Literal["never", "runs", "done", "failed"] = "never"
    model: str = ""
    by: str = ""
    began: str = ""
    ended: str = ""
    step: str = ""
    version: int | None = None
    reason: str = ""


class Learning:
    """Starts what learns, in a folder of its own; several processes may share that, and one of them learns."""

    def __init__(self, folder: Path, device: str = "auto", threads: int = 1) -> None:
        self._folder, self._device, self._threads = folder, device, threads
        self._process: BaseProcess | None = None

    def start(
        self, model: Path, name: str, records: Iterable[Mapping], by: str, announce: Callable[[], None] = lambda: None
    ) -> Status:
        """Begin to make a version of a model of what is said in `records`; `announce` is called when no other one is
        made, before anything is written. Raises UserError where one is."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=ASKED_S)
        except Timeout:
            name = self.status().model
            raise UserError(f"{f'the model {name}' if name else 'a model'} learns just now: wait for it.") from None
        try:
            announce()
            write_whole(self._folder / RECORDS, *(json.dumps(record).encode() + b"\n" for record in records))
            begun = Status("runs", name, by, _now(), step=STEPS[0])
            write_json(self._folder / STATUS, begun._asdict())
            arguments = (self._folder, model, begun, self._device, self._threads)
            self._process = get_context("spawn").Process(target=_learn, args=arguments, daemon=True)
            self._process.start()
            threading.Thread(target=_held_until, args=(lock, self._process), daemon=True).start()
        except BaseException:
            lock.release()
            raise
        return begun

    def status(self) -> Status:
        """As the process said it last; that it failed, where it ended without a word."""
        try:
            said = Status(**read_json(self._folder / STATUS))
        except (OSError, ValueError, TypeError):
            return Status()
        if said.state != "runs" or self._is_held():
            return said
        with suppress(OSError, ValueError, TypeError):  # it may have ended meanwhile
            said = Status(**read_json(self._folder / STATUS))
        reason = "it was ended before it was done: the version in use stays as it is, and may learn again."
        return said if said.state != "runs" else said._replace(state="failed", reason=reason)

    def stop(self) -> None:
        """End what this one started; the version in use stays whole."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def _is_held(self) -> bool:
        try:
            with FileLock(self._folder / LOCK, timeout=0):
                return False
        except Timeout:
            return True


def _held_until(lock: FileLock, process: BaseProcess) -> None:
    process.join()
    lock.release()


def _learn(folder: Path, model: Path, begun: Status, device: str, threads: int) -> None:
    """In a process of its own."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    with suppress(AttributeError, OSError):  # not every system has it
        os.nice(NICENESS)
    torch.set_num_threads(threads)

    def tell(step: str) -> None:
        write_json(folder / STATUS, begun._replace(step=step)._asdict())

    try:
        learned = learn(model, read_feedback(folder / RECORDS), device, tell)
        ended = begun._replace(state="done", version=learned.number)
    except UserError as error:
        ended = begun._replace(state="failed", reason=str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        ended = begun._replace(state="failed", reason=f"a fault ({type(error).__name__}); the log says more.")
    write_json(folder / STATUS, ended._replace(ended=_now())._asdict())
    sys.stderr.flush()
    os._exit(0)  # what torch takes to end would keep the next one from beginning


def _follow_parent() -> None:
    if parent_process() is not None:
        parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
