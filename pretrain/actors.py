"""Objects that keep a state, in this process, or each in an actor of Ray: asked by the same code.

Beside pretrain/tasks.py, whose tasks keep none. An object is made by a function and its number. Where its actor is
lost, it is made again, unless it was changed since: what only a dead process knew does not come back. Who asks
meanwhile is told.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from pretrain.command import UserError
from pretrain.tasks import Lost, Spread, cannot_import, ray_at

Make = Callable[[int], Any]

COMES_BACK = "was lost, and is being made again"
IS_GONE = "was lost with changes that were not saved"
# An answer that is there may lie on another machine: who is late keeps nobody from that.
SECONDS_TO_FETCH = 5.0


class Held(Protocol):
    """Objects by number. `ask` and `change` call a method of each number in `arguments`, and give its answers, or Lost;
    `change` those methods that alter the object. `kept` says that from now on `make` makes them as they are."""

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]: ...

    def change(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]: ...

    def kept(self, make: Make) -> None: ...


Hold = Callable[[Make, int], Held]


class HeldHere:
    """Objects in this process, of which none is ever lost."""

    def __init__(self, make: Make, count: int) -> None:
        self._objects = [make(number) for number in range(count)]

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        return {number: getattr(self._objects[number], method)(*given) for number, given in arguments.items()}

    change = ask

    def kept(self, make: Make) -> None:
        pass


@dataclass
class Copy:
    """One actor, what it answers once it is `ready` where that is still to come, and why it is absent, where it is."""

    actor: Any = None
    ready: Any = None
    reason: str = ""


class HeldOnRay:
    """Each object in `copies` actors. One of them is asked, and the next where that one is lost or takes longer than
    `patience_s`; only where all are, the answer is Lost. Raises what the object raises, as it would here."""

    def __init__(self, ray: ModuleType, patience_s: float, copies: int, make: Make, count: int) -> None:
        self._ray, self._patience_s, self._turn = ray, patience_s, 0
        # An actor waits most of the time, so it takes no core from tasks, and goes to the machine that has fewest.
        self._actor = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(Holder)
        self._changed: set[int] = set()
        self._make = ray.put(make)
        self._copies = [[self._begun(number) for _ in range(copies)] for number in range(count)]
        for number, each in enumerate(self._copies):
            for copy in each:
                if isinstance(self._answer(number, copy, copy.ready, float("inf")), Lost):
                    raise UserError(
                        f"an actor of Ray died when it was to hold part {number} of {count}: too little memory?"
                    )
                copy.ready, copy.reason = None, ""

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        answers, most, self._turn = {}, len(self._copies[0]), self._turn + 1
        for attempt in range(most):
            left = [number for number in arguments if isinstance(answers.get(number, Lost("")), Lost)]
            tried = {number: [self._copies[number][(self._turn + attempt) % most]] for number in left}
            answers |= self._call(method, {number: arguments[number] for number in left}, tried)
        return answers

    def change(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        for number in arguments:
            for copy in self._copies[number]:
                if self._absence(number, copy, self._patience_s):  # later it would come back as it was before
                    copy.actor, copy.ready, copy.reason = None, None, IS_GONE
        self._changed |= arguments.keys()
        return self._call(method, arguments, {number: self._copies[number] for number in arguments})

    def kept(self, make: Make) -> None:
        self._make = self._ray.put(make)
        self._changed.clear()

    def _call(self, method: str, arguments: Mapping[int, tuple], copies: Mapping[int, list[Copy]]) -> dict[int, Any]:
        """The answer of each number's first copy that gives one; all of them are asked at once."""
        asked = []
        for number, given in arguments.items():
            for copy in copies[number]:
                reason = self._absence(number, copy)
                asked.append((number, copy, reason or copy.actor.call.remote(method, *given)))
        answers, end_s = {}, time.monotonic() + self._patience_s
        if waited := [answer for *_, answer in asked if not isinstance(answer, str)]:
            with suppress(ConnectionError, self._ray.exceptions.RaySystemError):  # which `_answer` says
                self._ray.wait(waited, num_returns=len(waited), timeout=self._patience_s)
        end_s = max(end_s, time.monotonic() + SECONDS_TO_FETCH)
        for number, copy, answer in asked:
            answer = Lost(answer) if isinstance(answer, str) else self._answer(number, copy, answer, end_s)
            if isinstance(answers.get(number, Lost("")), Lost):
                answers[number] = answer
        return answers

    def _answer(self, number: int, copy: Copy, asked: Any, end_s: float) -> Any:
        errors = self._ray.exceptions
        try:
            left_s = None if end_s == float("inf") else max(0.001, end_s - time.monotonic())
            return self._ray.get(asked, timeout=left_s)
        except errors.GetTimeoutError:
            return self._lose(number, copy, f"gave no answer within {self._patience_s:g} s")
        except errors.RayTaskError as error:
            raise cannot_import(error.cause) or error.cause from None
        except (errors.RaySystemError, ConnectionError) as error:
            raise UserError(f"Ray has ended ({error}): start it, and the same command again.") from None
        except errors.RayError:  # the actor died, or its machine
            return self._lose(number, copy, COMES_BACK)

    def _lose(self, number: int, copy: Copy, reason: str) -> Lost:
        """End a copy; another takes its place where what it holds can be made."""
        with suppress(Exception):  # most often it is dead already
            self._ray.kill(copy.actor)
        copy.actor, copy.ready, copy.reason = None, None, reason
        self._absence(number, copy)
        return Lost(reason)

    def _begun(self, number: int) -> Copy:
        actor = self._actor.remote()
        return Copy(actor, actor.make.remote(self._make, number), COMES_BACK)

    def _absence(self, number: int, copy: Copy, wait_s: float = 0) -> str:
        """Why a copy cannot answer now, or after a while; nothing where it can. Where what it held can be made, that
        has begun."""
        if copy.actor is None and number in self._changed:
            copy.reason = IS_GONE
        elif copy.actor is None:
            begun = self._begun(number)
            copy.actor, copy.ready = begun.actor, begun.ready
        if copy.ready is not None and self._ray.wait([copy.ready], timeout=wait_s)[0]:
            try:
                self._ray.get(copy.ready)
                copy.ready, copy.reason = None, ""
            except self._ray.exceptions.RayTaskError as error:
                if wrong := cannot_import(error.cause):
                    raise wrong from None
                copy.actor, copy.ready, copy.reason = None, None, f"cannot be made again: {error.cause}"
            except self._ray.exceptions.RayError:
                copy.actor, copy.ready, copy.reason = None, None, COMES_BACK
        return copy.reason


class Holder:
    """What an actor is: an object, made there."""

    def make(self, make: Make, number: int) -> None:
        self._object = make(number)

    def call(self, method: str, *given: object) -> object:
        return getattr(self._object, method)(*given)


@contextmanager
def objects_at(where: Spread, copies: int = 1) -> Iterator[Hold]:
    """How to hold objects, by what the user typed; on Ray, until the context ends."""
    if copies < 1:
        raise UserError(f"{copies} copies of a part hold nothing: give at least 1.")
    if copies > 1 and where.address is None:
        raise UserError(f"{copies} copies are held by as many actors of Ray: give --address too, or leave them out.")
    with ray_at(where) as ray:
        if ray is None:
            yield HeldHere
        else:
            yield lambda make, count: HeldOnRay(ray, where.patience_s, copies, make, count)
