"""Tasks here, one after another, or on the workers of Ray, of this machine or of many: by the same code.

Ray is an optional extra and imported only where an address is given. What runs there is a function of a module and its
argument, both small. A task may run twice, where its worker died, so what it leaves has to be the same each time.
"""

import faulthandler
import logging
import os
import re
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from errno import EDQUOT, ENOSPC
from importlib import import_module
from itertools import islice
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from pretrain.command import UserError, installed_by
from pretrain.workers import usable_cores

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"
ELSEWHERE = re.compile(r"(ray://)?(?P<at>[^\s/@]+:(?P<port>\d{1,5}))")
# How often a task is tried whose worker dies.
ATTEMPTS = 3
# Tasks waiting or running for each core: so that none is idle, and the driver holds few of a million.
UNDER_WAY = 2
# What starting the workers of all these tries may take beside their time.
FROZEN_S = 60.0
SECONDS_BETWEEN_COUNTS = 5.0
# A driver that cannot reach the store of Ray's state is ended by Ray after 60 s, by exit code 1, which for inspection
# means that something is defective. Here it ends before, with a sentence.
SECONDS_BETWEEN_LOOKS, UNREACHABLE_S = 2.0, 15.0
# What goes through Ray's shared memory is small. By default it would claim a third of the machine's.
STORE_BYTES = 256 * 2**20
# Nothing is reported to Ray's makers, and what is started here is reached from here alone: where Ray believes that it
# cannot make a cluster, it listens on the loopback and nowhere else.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Since gRPC 1.80 a process that is forked beside open channels can crash before it begins (grpc/grpc#43055), as the one
# that Ray's client server starts for each client: 2 of 9 did, and none of 7 where its environment has this.
NO_FORKS = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
CLIENT_SERVER_CRASHED = "Starting Ray client server failed"
# What Ray raises, as a RuntimeError, where a worker lacks a module of the function.
NOT_IMPORTED = "failed to import on the worker"
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Where a command computes.

    Attributes:
        address: Compute on Ray's workers: local starts them on this machine, auto finds the Ray that runs here, or that
            RAY_ADDRESS names, HOST:PORT is the one to which this machine belongs, and ray://HOST:PORT, of its client
            server, one elsewhere. Default is this process alone.
        patience_s: On Ray, seconds after which a part that is not done is given to another worker.
    """

    address: str | None = None
    patience_s: int = 1800


@dataclass(frozen=True)
class Needs:
    """What a task takes of a machine."""

    cores: int = 1
    memory_bytes: int = 0


class Lost(NamedTuple):
    """In place of a result: every worker that tried the task died, and what may be the reason."""

    reason: str


class Raised(NamedTuple):
    """In place of a result: what was raised there."""

    error: Exception


def answer_of(found: object) -> Any:
    """A result; what was raised in its place is raised here."""
    if isinstance(found, Raised):
        raise found.error from None
    return found


class Tasks(Protocol):
    """Where tasks run."""

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], in_order: bool = False
    ) -> Iterator[tuple[Task, Result | Lost]]: ...


class Here:
    """In this process, in their order."""

    at_once = 1

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], in_order: bool = False
    ) -> Iterator[tuple[Task, Result]]:
        for task in tasks:
            yield task, function(task)


class Connected:
    """Ray, as this process is connected to it, which waits for results and notices where Ray is gone."""

    def __init__(self, ray: ModuleType, state: str | None = None) -> None:
        """`state` is where Ray's state is stored, HOST:PORT, if this process reaches it."""
        self.ray, self._state, self._reached_s = ray, state, time.monotonic()

    @classmethod
    def at(cls, ray: ModuleType, address: str) -> Self:
        # By ray:// a process on the other side reaches it, and this one does not.
        return cls(ray, None if address.startswith(CLIENT) else ray.get_runtime_context().gcs_address)

    def wait(self, waiting: list, count: int = 1, seconds: float = inf) -> list:
        """Those that are done: so many, or fewer where that takes longer. Raises ConnectionError where Ray is gone."""
        end_s = time.monotonic() + seconds
        while True:
            look_s = max(0.0, min(SECONDS_BETWEEN_LOOKS, end_s - time.monotonic()))
            done, _ = self.ray.wait(waiting, num_returns=count, timeout=look_s)
            if len(done) >= count or time.monotonic() >= end_s:
                return done
            self.reach()

    def look(self) -> None:
        """Reach it where that is some time ago: actors answer although Ray, which ends this process then, is gone."""
        if time.monotonic() - self._reached_s > SECONDS_BETWEEN_LOOKS:
            self.reach()

    def reach(self) -> None:
        """Raise ConnectionError where Ray's state cannot be reached for some time, or no machine is left."""
        start_s = time.monotonic()
        while self._state is not None:
            try:
                knock(self._state)
                break
            except OSError as error:
                if time.monotonic() - start_s > UNREACHABLE_S:
                    raise ConnectionError(f"{self._state} does not answer: {error}") from None
            time.sleep(SECONDS_BETWEEN_LOOKS / 4)
        if not any(node["Alive"] for node in self.ray.nodes()):
            raise ConnectionError("none of its machines is left")
        self._reached_s = time.monotonic()

    @contextmanager
    def told(self) -> Iterator[None]:
        """That Ray is gone is a UserError, and that the process there that asks for this one lacks a module."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise cannot_import(error) or error from None
        except (self.ray.exceptions.RaySystemError, ConnectionError) as error:
            raise UserError(f"Ray has ended ({error}): start it, and give the same command again.") from None


class OnRay:
    """On Ray's workers, as they become free; each has what a task needs, and a GPU where `gpus` is 1."""

    def __init__(self, connected: Connected, patience_s: float, gpus: int, needs: Needs = Needs()) -> None:
        self._connected, self._ray = connected, connected.ray
        self._patience_s, self._gpus, self._needs = patience_s, gpus, needs
        self._counted_s = -SECONDS_BETWEEN_COUNTS

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], in_order: bool = False
    ) -> Iterator[tuple[Task, Result | Lost]]:
        """Each task with its result, as they are done; of `tasks` only as many are taken as workers can be given. In
        their order, results that are done before an earlier one wait in Ray's store, and count as under way.

        Raises what the function raises, as it would here, and UserError where Ray itself has ended. What is under way
        then, few tasks, goes on until this process leaves Ray, which ends it: to cancel a task that is done at that
        very moment can abort this process, or keep its core (Ray 2.60)."""
        ray = self._ray
        # max_calls: a worker with a GPU would end after each task, and load the model for every one.
        needs = {"num_cpus": self._needs.cores, "num_gpus": self._gpus, "memory": self._needs.memory_bytes or None}
        run = ray.remote(**needs, max_retries=ATTEMPTS - 1, max_calls=0)(_watched)
        waiting, tasks = {}, iter(tasks)
        try:
            with self._connected.told():
                shared = ray.put(function)
            while True:
                with self._connected.told():
                    for task in islice(tasks, max(0, UNDER_WAY * self.at_once - len(waiting))):
                        waiting[run.remote(shared, task, self._patience_s)] = task
                    if not waiting:
                        return
                    done = self._first_done(list(waiting), in_order)
                    found = self._result(done)
                yield waiting.pop(done), answer_of(found)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"Ray cannot go on ({reason_of(error)}): put that right, and the same command goes on."
            ) from None

    def _first_done(self, waiting: list, in_order: bool) -> object:
        """Of those that wait, the first that is done, or where their order counts, the first one, once it is done. A
        worker that is frozen does not even end itself when its time is over, so it is ended from outside."""
        room_since_s = time.monotonic()
        while True:
            if done := self._connected.wait(waiting[:1] if in_order else waiting, seconds=SECONDS_BETWEEN_LOOKS):
                return done[0]
            if not self._has_room():  # of what waits some may not have begun: others use the same machines
                room_since_s = time.monotonic()
            elif time.monotonic() - room_since_s > ATTEMPTS * self._patience_s + FROZEN_S:
                for each in waiting:
                    self._ray.cancel(each, force=True)

    def _has_room(self) -> bool:
        """Whether one more task could run."""
        self._connected.reach()
        there, (cores, memory_bytes) = self._ray.available_resources(), astuple(self._needs)
        needed = {"CPU": cores, "GPU": self._gpus, "memory": memory_bytes}
        return all(there.get(name, 0) >= count for name, count in needed.items())

    @property
    def at_once(self) -> int:
        """How many tasks can run at the same time. Machines that join a cluster count soon."""
        if time.monotonic() - self._counted_s > SECONDS_BETWEEN_COUNTS:
            self._connected.reach()
            there, (cores, memory_bytes) = self._ray.cluster_resources(), astuple(self._needs)
            most = there.get("GPU", 1) if self._gpus else there.get("CPU", 1) / cores
            most = min(most, there.get("memory", 0) / memory_bytes) if memory_bytes else most
            self._most, self._counted_s = max(1, int(most)), time.monotonic()
        return self._most

    def check(self) -> None:
        """Raise UserError where no machine has what a task needs: it would wait without end."""
        needed = {"CPU": self._needs.cores, "memory": self._needs.memory_bytes}
        there = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(each.get(name, 0) >= count for name, count in needed.items()) for each in there):
            raise UserError(
                f"no machine of this Ray has {self._needs.cores} cores and {self._needs.memory_bytes / 2**30:.3g} GiB "
                "of memory for a task: let it take less."
            )

    def _result(self, done: object) -> object:
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:
            return Raised(cannot_import(error.cause) or error.cause)
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.TaskCancelledError,
        ):
            return Lost(
                f"brought its worker down {ATTEMPTS} times, or took longer than {self._patience_s:g} s there "
                "(too little memory, or a hostile file)"
            )


def cannot_import(error: BaseException) -> UserError | None:
    """What to say of an error on a worker, where that is that its machine lacks a module."""
    if not isinstance(error, ModuleNotFoundError) and NOT_IMPORTED not in str(error):
        return None
    return UserError(f"Ray's workers cannot import heldout ({reason_of(error)}): install the same on every machine.")


def reason_of(error: BaseException) -> str:
    """What Ray says, in a line: its first one, or, where it tells a traceback of elsewhere, what that ends by."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not any(line.startswith("Traceback") for line in lines):
        return lines[0]
    after = [number for number, line in enumerate(lines[:-1], 1) if line.startswith((" ", "Traceback"))]
    return lines[max(after, default=0)]


@contextmanager
def tasks_at(where: Spread, device: str = "cpu", needs: Needs = Needs()) -> Iterator[Here | OnRay]:
    """Where to run tasks, by what the user typed."""
    with ray_at(where) as ray:
        if ray is None:
            yield Here()
            return
        has_gpu = device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1
        spread = OnRay(Connected.at(ray, where.address), where.patience_s, int(has_gpu), needs)
        if needs != Needs():
            spread.check()
        yield spread


@contextmanager
def ray_at(where: Spread) -> Iterator[ModuleType | None]:
    """Ray by its address, none where none is given. A Ray that this process has already is used and left alone."""
    if where.address is None:
        yield None
        return
    if where.patience_s <= 0:
        raise UserError(f"a patience of {where.patience_s} s leaves no time: give more than 0.")
    ray = ray_module(where.address)
    begins = not ray.is_initialized()
    if begins:
        _start(ray, where.address)
    try:
        yield ray
    finally:
        if begins:
            ray.shutdown()


def ray_module(address: str) -> ModuleType:
    """Ray, told before it is imported what it reads only then. Raises UserError where it is not installed."""
    elsewhere = ELSEWHERE.fullmatch(address)
    if address not in (LOCAL, AUTO) and not (elsewhere and int(elsewhere["port"]) < 2**16):
        shown = re.sub(r"//.*@", "//...@", address)  # a password may have been typed
        raise UserError(f"{shown} is no address of Ray: give local, auto, HOST:PORT or ray://HOST:PORT.")
    for name, value in (QUIET | NO_FORKS).items():
        os.environ.setdefault(name, value)
    if address == LOCAL:
        os.environ.update(LOOPBACK)
    try:
        return import_module("ray")
    except ImportError:
        raise UserError(f"--address is for Ray, which is not installed: {installed_by('ray')}.") from None


def _start(ray: ModuleType, address: str) -> None:
    """Start Ray here, or connect to the one that runs. Raises UserError where neither works."""
    told = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        told |= {"num_cpus": usable_cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
    with importable_by_workers():
        try:
            if elsewhere := ELSEWHERE.fullmatch(address):
                knock(elsewhere["at"])  # Ray itself would try for half a minute
            ray.init(address, **told)
        except Exception as error:  # bare ones too, where its processes take long to start
            reason, todo = reason_of(error), "--address local starts one on this machine"
            if CLIENT_SERVER_CRASHED in reason:
                todo = (
                    "try again, or start that Ray anew with GRPC_ENABLE_FORK_SUPPORT=0 in the environment of its head"
                )
            raise UserError(f"there is no Ray at {address} ({reason}); {todo}.") from None


def knock(at: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT."""
    host, _, port = at.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), SECONDS_BETWEEN_LOOKS).close()


@contextmanager
def importable_by_workers() -> Iterator[None]:
    """Workers that are started here import the very code that runs here; what is installed they find anyway."""
    before = os.environ.get("PYTHONPATH")
    if str(REPOSITORY) not in sysconfig.get_paths().values():
        os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [before])])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def _watched(function: Callable[[Task], Result], task: Task, patience_s: float) -> Result:
    """A task on a worker, which ends where it takes longer: also one that hangs outside of Python."""
    faulthandler.dump_traceback_later(patience_s, exit=True, file=sys.__stderr__)
    try:
        return function(task)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        raise UserError(f"the disk of {socket.gethostname()} is full ({error}): make room there.") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
