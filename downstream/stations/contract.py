"""What the parts of a line promise one another: sources give frames, triggers say where a part begins, sinks deliver.

To add one: a class here fulfilled in `sources/`, `triggers/` or `sinks/`, its options in the `config.py` beside it, and
its entry in `catalogue.py`. Each is made as `Class(options, surroundings)`, its options a dataclass that was checked
already, and used from threads of the line: what it waits for must end soon after `stop()` or `close()`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from downstream.stations.signal import Signal

if TYPE_CHECKING:
    import numpy as np

Mode = Literal["running", "fault", "stopped"]
# How often a sink is shown the state of each station, changes aside, which are shown at once.
HEARTBEAT_S = 1.0
# Of images that the line keeps.
IMAGE_SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif")
# Opens a part by the name that is given, which may be empty, and gives the id of its signal.
OpenPart = Callable[[str], str]


class Surroundings(NamedTuple):
    """What a part of the line is told of the rest: the station that it is of (none for a sink), the stations' names,
    the folder of the line's state, and that of kept images."""

    station: str | None
    stations: Sequence[str]
    state_folder: Path
    images_folder: Path

    def image_of(self, signal: Signal) -> Path | None:
        """The kept image of a signal, for a sink that `wants_images`; written a moment after the signal, or never."""
        return image_beside(self.images_folder, signal.id)


def image_beside(folder: Path, stem: str) -> Path | None:
    """The image of that name in a folder, which may have very many."""
    paths = (folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class Frame:
    """One picture: a file at `path`, a file's bytes `data`, or `pixels`, uint8 (h, w, 3) RGB.

    `name` is what its source calls it, for people. `key` tells it from every other frame of its station, also after a
    restart, where the source knows that: its part has the same id then. `arrived_s`, of `time.monotonic`, is when it
    came.
    """

    name: str
    arrived_s: float
    key: str = ""
    path: Path | None = None
    data: bytes | None = None
    pixels: "np.ndarray | None" = None


class Source:
    """Gives frames, and reconnects itself: what fails for a while is waited for, with `problem` saying what it is.

    `is_live`: frames that nobody takes in time are lost, as a camera's are; else it waits until it is asked for the
    next one. `repeats`: a frame that was not settled comes again after a restart, so that its part is judged then and
    needs no fault; `stays`: and so do settled ones. `names_parts`: each frame is a part by itself, without a trigger.
    `gives_pixels`: frames are pixels of 8 bits, and no files, which may have more.
    """

    is_live: bool = True
    repeats: bool = False
    stays: bool = False
    names_parts: bool = False
    gives_pixels: bool = False
    problem: str | None = None

    @staticmethod
    def what_is_missing(options: Any) -> str | None:
        """In words, for `--check`, of what the options of this kind name; it may be there when it is needed."""
        return None

    def frames(self) -> Iterator[Frame]:
        """Frames as they come, until `stop()` or the end of a finite source. Raises what it cannot mend itself; the
        supervisor then makes another one, later each time."""
        raise NotImplementedError

    def present(self) -> Collection[str]:
        """Keys of what a source that `repeats` would give after a restart; called before `frames()`."""
        return ()

    def settled(self, frame: Frame) -> None:
        """The signal of its part is on disk: the frame may be put away. From another thread."""

    def stop(self) -> None:
        """End `frames()` soon, from another thread."""


class Trigger:
    """Says where a part begins: with a frame (`begins`), or by word from outside (`start`), as MQTT's or HTTP's.

    A part that was opened from outside gets the frames that arrive from then on, `delay_ms` later; without any within
    the station's budget it is a fault. `is_sampling`: its parts are samples of a stream, of which the newest may win;
    each part of any other trigger gets its signal.
    """

    is_sampling: ClassVar[bool] = False
    delay_ms: float = 0.0
    problem: str | None = None  # what keeps it from hearing anything, in words

    def start(self, open_part: OpenPart) -> None:
        """Begin to listen; call `open_part` from any thread. It returns when the part is on disk."""

    def begins(self, frame: Frame) -> bool:
        """Whether a part begins with this frame; asked of each frame in turn, from the source's thread."""
        return False

    def stop(self) -> None:
        """Listen no more."""


@dataclass(frozen=True)
class StationState:
    """How a station is just now, for a PLC or a page: what must be seen at once and is never kept.

    `mode` is fault while its source, its model or its disk does not work, with `reason` in words; `busy` while a part
    is being judged. `heartbeat` counts up, once a second, for as long as the line can keep its promises. `parts`,
    `passed`, `failed` and `faults` count signals since the line started; `dropped` frames that came while the model was
    busy."""

    station: str
    mode: Mode
    reason: str
    busy: bool
    heartbeat: int
    time: str
    parts: int = 0
    passed: int = 0
    failed: int = 0
    faults: int = 0
    dropped: int = 0

    def to_dict(self) -> dict:
        return asdict(self)


class NotDelivered(Exception):
    """The receiver did not take a signal, and may later. Its text, without secrets, is shown on the status page."""


class Refused(Exception):
    """The receiver understood a signal and will never take it. It is put aside, and those behind it go on."""


class Sink:
    """Sends signals to one receiver. Of each sink one thread, in the order of the signals, calls `send`, again and
    again for the same one, with the pause of a backoff, until it returns.

    `wants_images`: images are kept in the images folder until this sink has their signals."""

    wants_images: bool = False

    def open(self) -> None:
        """Begin: bind a port, start a client. Called once, before the first signal, in the main thread. Must not wait
        for the receiver: one that is away is no reason not to start. Raises UserError for what the user can mend."""

    def send(self, signal: Signal) -> None:
        """Returns when the receiver has the signal. Raises NotDelivered or OSError where it has not, and Refused."""
        raise NotImplementedError

    def kept_image(self, signal: Signal) -> Path | None:
        """The image of a part that this sink has put somewhere, for the history; from any thread."""
        return None

    def show(self, state: StationState) -> None:
        """The state of a station: at every change, and with each heartbeat. Never waits, never raises for a receiver
        that is away; most sinks have nothing to show it on."""

    def close(self) -> None:
        """End, from the main thread: `send` may be waiting in another one and has to return or raise soon."""
