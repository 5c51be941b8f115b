"""The options of every trigger. Nothing heavy is imported here."""

from dataclasses import dataclass

from downstream.stations.options import Options
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
