"""The options of every trigger. Nothing heavy is imported here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from downstream.stations.broker import PAHO, Broker, check_topic
from downstream.stations.options import Address, Options
from pretrain.command import UserError


@dataclass(frozen=True)
class Every(Options):
    """Each frame is a part."""


@dataclass(frozen=True)
class Interval(Options):
    """A part every so many milliseconds.

    Attributes:
        ms: Milliseconds between two parts.
    """

    ms: float

    def check(self) -> None:
        if self.ms <= 0:
            raise UserError("ms has to be above 0.")


@dataclass(frozen=True)
class Motion(Options):
    """A part that came and stopped: frames differed, and now differ no more.

    Attributes:
        moving: A frame moves where its gray values, 0 to 255, differ by so much from the frame before, on average of
            the quarter of the image that changed most.
        rest_frames: So many frames without motion are rest.
    """

    moving: float = 6.0
    rest_frames: int = 3

    def check(self) -> None:
        if self.moving <= 0 or self.rest_frames < 1:
            raise UserError("moving has to be above 0, and rest_frames 1 or more.")


@dataclass(frozen=True)
class Call(Options):
    """A part when somebody asks: `POST /api/stations/NAME/trigger`, as `{"name": "17"}` or without a body.

    Attributes:
        delay_ms: Frames that arrive sooner after the call are left out: the part is on its way.
    """

    delay_ms: float = 0.0

    def check(self) -> None:
        if self.delay_ms < 0:
            raise UserError("delay_ms may not be below 0.")


@dataclass(frozen=True)
class Mqtt(Broker, Options):
    """A part when a message comes, as `{"name": "17"}`, a text, or nothing.

    Attributes:
        url: mqtt://HOST, or mqtts://HOST for TLS, with a port where it is not 1883 or 8883.
        user: Who the line is to the broker. Default is nobody.
        password: From a file or the environment.
        ca: File of certificates that the broker's is checked against. Default is the system's.
        topic: Which topic it listens to. Default is heldout/STATION/trigger.
        delay_ms: Frames that arrive sooner after the message are left out: the part is on its way.
    """

    needs: ClassVar[tuple[str, str] | None] = PAHO
    topic: str = ""
    delay_ms: float = 0.0

    def check(self) -> None:
        super().check()
        self.check_broker()
        if self.topic:
            check_topic(self.topic)
        if self.delay_ms < 0:
            raise UserError("delay_ms may not be below 0.")

    def reaches(self) -> Sequence[Address]:
        return [self.address()]
