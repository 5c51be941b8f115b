"""Objects that keep a state, in this process, or each in an actor of Ray: asked by the same code.

Beside pretrain/tasks.py, whose tasks keep none. An object is made by a function and its number. Where its actor is
lost, it is made again, unless it was changed since: what only a dead process knew does not come back. Who asks
meanwhile is told.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pretrain.command import UserError
from pretrain.tasks import Connected, Lost, Raised, Spread, answer_of, cannot_import, ray_at, reason_of

Make = Callable[[int], Any]

COMES_BACK = "was lost, and is being made again"
IS_GONE = "was lost with changes that were not saved"
# An answer that is there may lie on another machine: who is late keeps nobody from that.
SECONDS_TO_FETCH = 5.0
NONE = Lost("")


class Held(Protocol):
    """Objects by number. `ask` and `change` call a method of each number in `arguments`, and give its answers, or Lost;
    `change` those methods that alter the object; `tell` one of each that says how it is to answer, also of those that
    are made later. `kept` says that from now on `make` makes them as they are."""

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]: ...

    def change(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]: ...

    def tell(self, method: str, *given: object) -> None: ...

    def kept(self, make: Make) -> None: ...


Hold = Callable[[Make, int], Held]


class HeldHere:
    """Objects in this process, of which none is ever lost."""

    def __init__(self, make: Make, count: int) -> None:
        self._objects = [make(number) for number in range(count)]

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        return {number: getattr(self._objects[number], method)(*given) for number, given in arguments.items()}

    change = ask

    def tell(self, method: str, *given: object) -> None:
        self.ask(method, dict.fromkeys(range(len(self._objects)), given))

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

    def __init__(self, connected: Connected, patience_s: float, copies: int, make: Make, count: int) -> None:
        self._connected, self._ray, self._patience_s, self._turn = connected, connected.ray, patience_s, 0
        # An actor waits most of the time, so it takes no core from tasks, and goes to the machine that has fewest.
        self._actor = self._ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(Holder)
        self._changed: set[int] = set()
        self._told: dict[str, tuple] = {}
        with connected.told():
            self._make = self._ray.put(make)
            self._copies = [[self._begun(number) for _ in range(copies)] for number in range(count)]
            begun = [copy.ready for each in self._copies for copy in each]
            connected.wait(begun, len(begun))
            for number, each in enumerate(self._copies):
                for copy in each:
                    answer = self._answer(number, copy, copy.ready, time.monotonic() + SECONDS_TO_FETCH)
                    if isinstance(answer_of(answer), Lost):
                        raise UserError(
                            f"an actor of Ray died when it was to hold part {number} of {count}: too little memory?"
                        )
                    copy.ready, copy.reason = None, ""

    def ask(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        answers, most, self._turn = {}, len(self._copies[0]), self._turn + 1
        for attempt in range(most):
            left = {number: arguments[number] for number in arguments if isinstance(answers.get(number, NONE), Lost)}
            tried = {number: [self._copies[number][(self._turn + attempt) % most]] for number in left}
            with self._connected.told():
                answers |= {number: answer for number, _, answer in self._called(method, left, tried)}
        return {number: answer_of(answer) for number, answer in answers.items()}

    def change(self, method: str, arguments: Mapping[int, tuple]) -> dict[int, Any]:
        copies, answers = {number: self._copies[number] for number in arguments}, defaultdict(list)
        with self._connected.told():
            for number, each in copies.items():
                for copy in each:
                    if self._absence(number, copy, self._patience_s):  # later it would come back as it was before
                        copy.actor, copy.ready, copy.reason = None, None, IS_GONE
            self._changed |= arguments.keys()
            for number, copy, answer in self._called(method, arguments, copies):
                answers[number].append(answer)
                if isinstance(answer, Raised):  # nobody knows what it holds now, and others may have changed
                    self._lose(number, copy, IS_GONE)
        return {number: answer_of(min(each, key=_worth)) for number, each in answers.items()}

    def tell(self, method: str, *given: object) -> None:
        self._told[method] = given
        everyone = dict(enumerate(self._copies))
        with self._connected.told():
            for number, each in everyone.items():
                for copy in each:
                    if copy.ready is not None:  # it is being made by what was told before
                        self._lose(number, copy, COMES_BACK)
            called = self._called(method, dict.fromkeys(everyone, given), everyone)
        for *_, answer in called:
            answer_of(answer)

    def kept(self, make: Make) -> None:
        with self._connected.told():
            self._make = self._ray.put(make)
        self._changed.clear()

    def _called(
        self, method: str, arguments: Mapping[int, tuple], copies: Mapping[int, list[Copy]]
    ) -> list[tuple[int, Copy, Any]]:
        """The answer of each copy, Lost, or Raised; all of them are asked at once."""
        self._connected.look()
        asked = []
        for number, given in arguments.items():
            for copy in copies[number]:
                reason = self._absence(number, copy)
                asked.append((number, copy, reason or copy.actor.call.remote(method, *given)))
        waited = [answer for *_, answer in asked if not isinstance(answer, str)]
        end_s = time.monotonic() + self._patience_s
        if waited:
            self._connected.wait(waited, len(waited), self._patience_s)
        end_s = max(end_s, time.monotonic() + SECONDS_TO_FETCH)
        return [
            (number, copy, Lost(answer) if isinstance(answer, str) else self._answer(number, copy, answer, end_s))
            for number, copy, answer in asked
        ]

    def _answer(self, number: int, copy: Copy, asked: Any, end_s: float) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(asked, timeout=max(0.001, end_s - time.monotonic()))
        except errors.GetTimeoutError:
            return self._lose(number, copy, f"gave no answer within {self._patience_s:g} s")
        except errors.RayTaskError as error:
            if wrong := cannot_import(error.cause):
                raise wrong from None
            return Raised(error.cause)
        except errors.RaySystemError:
            raise
        except errors.RayError as error:
            is_dead = isinstance(error, errors.RayActorError | errors.ObjectLostError)  # or its machine
            return self._lose(number, copy, COMES_BACK if is_dead else f"gave no answer ({reason_of(error)})")

    def _lose(self, number: int, copy: Copy, reason: str) -> Lost:
        """End a copy; another takes its place where what it holds can be made."""
        self._connected.reach()  # what follows would wait for a Ray that is gone
        with suppress(Exception):  # most often it is dead already
            self._ray.kill(copy.actor)
        copy.actor, copy.ready, copy.reason = None, None, reason
        self._absence(number, copy)
        return Lost(reason)

    def _begun(self, number: int) -> Copy:
        actor = self._actor.remote()
        return Copy(actor, actor.make.remote(self._make, number, self._told), COMES_BACK)

    def _absence(self, number: int, copy: Copy, wait_s: float = 0) -> str:
        """Why a copy cannot answer now, or after a while; nothing where it can. Where what it held can be made, that
        has begun."""
        if copy.actor is None and number in self._changed:
            copy.reason = IS_GONE
        elif copy.actor is None:
            begun = self._begun(number)
            copy.actor, copy.ready = begun.actor, begun.ready
        if copy.ready is not None and self._connected.wait([copy.ready], seconds=wait_s):
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

    def make(self, make: Make, number: int, told: Mapping[str, tuple]) -> None:
        self._object = make(number)
        for method, given in told.items():
            self.call(method, *given)

    def call(self, method: str, *given: object) -> object:
        return getattr(self._object, method)(*given)


def _worth(answer: object) -> int:
    """Of the answers of copies one that went through counts, else what was raised."""
    return 2 if isinstance(answer, Lost) else int(isinstance(answer, Raised))


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
            connected = Connected.at(ray, where.address)
            yield lambda make, count: HeldOnRay(connected, where.patience_s, copies, make, count)
