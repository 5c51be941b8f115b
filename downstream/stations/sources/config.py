"""The options of every source. Nothing heavy is imported here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from downstream.stations.options import Address, Options, Secret, address_in
from pretrain.command import UserError

STREAMS = ("rtsp", "rtsps", "http", "https")
# The folders of the producers that are installed, by the GenTL standard.
PRODUCERS = "GENICAM_GENTL64_PATH"
# Frames a second: fewer are no camera's, and between two of them would be longer than can be waited.
SLOWEST = 1e-4


@dataclass(frozen=True)
class Folder(Options):
    """Images that something writes into a folder; each is a part, called by its name.

    Attributes:
        path: The folder; made where it is not there.
        done: Folder that judged images are moved to; without one they are left where they are, and remembered.
        settle_s: A file is whole when its size and time have not changed for so many seconds.
        every_s: Seconds between two looks.
    """

    path: Path
    done: Path | None = None
    settle_s: float = 0.5
    every_s: float = 0.2

    def owns(self) -> Sequence[str]:
        return [f"the folder {self.path.resolve()}"]

    def check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"path {self.path} is no folder.")
        if self.done is not None and self.done.resolve() == self.path.resolve():
            raise UserError(f"done {self.done} is the watched folder itself: name another one.")
        if self.settle_s < 0 or self.every_s <= 0:
            raise UserError("settle_s may not be below 0, and every_s has to be above it.")


@dataclass(frozen=True)
class Replay(Options):
    """The images of a folder at a rate, as a camera would give them: to try a line out.

    Attributes:
        path: The folder.
        rate: Images a second.
        loops: How often all of them are shown; 0 is without end.
        waits: Wait while the model is busy; else what comes meanwhile is handled as a camera's frames are.
    """

    path: Path
    rate: float = 10.0
    loops: int = 1
    waits: bool = False

    def check(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}.")
        if self.rate < SLOWEST or self.loops < 0:
            raise UserError(f"rate has to be {SLOWEST:g} or more, and loops may not be below 0.")


@dataclass(frozen=True)
class Video(Options):
    """A camera or a video: USB (/dev/video0), an RTSP or HTTP stream (MJPEG too), or a file.

    Attributes:
        url: Device, URL without a password, or file. A file is shown at its own rate, once.
        user: User name for the camera.
        password: The password, from a file or the environment.
        transport: How RTSP comes: tcp loses nothing, udp is a little sooner.
        timeout_s: A camera that says nothing for so long is connected to anew.
        rate: Frames a second of a file, in place of its own.
        format: How a device is opened, where it cannot be guessed: v4l2, dshow, avfoundation.
    """

    url: str
    user: str | None = None
    password: Secret | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    timeout_s: float = 5.0
    rate: float | None = None
    format: str | None = None
    needs: ClassVar[tuple[str, str] | None] = ("av", "line")

    def check(self) -> None:
        super().check()
        if "://" in self.url:
            address_in(self.url, STREAMS)
        elif not self.is_device and not Path(self.url).is_file():
            raise UserError(f"there is no video file {self.url}.")
        if self.timeout_s <= 0 or (self.rate is not None and self.rate < SLOWEST):
            raise UserError(f"timeout_s has to be above 0, and rate {SLOWEST:g} or more.")

    @property
    def is_device(self) -> bool:
        is_in_memory = self.url.startswith("/dev/shm/")  # a file like any other
        return self.format is not None or (self.url.startswith("/dev/") and not is_in_memory)

    def owns(self) -> Sequence[str]:
        return [f"the camera {self.url}"] if self.is_device else ()

    def reaches(self) -> Sequence[Address]:
        return [address_in(self.url, STREAMS)] if "://" in self.url else ()


@dataclass(frozen=True)
class GenICam(Options):
    """An industrial camera that follows GenICam (GigE Vision, USB3 Vision, CoaXPress), by its vendor's GenTL producer.

    Attributes:
        producer: The producer, a .cti file, which is native code that is run. Default is every one in the folders that
            the environment names in GENICAM_GENTL64_PATH.
        serial: The camera's serial number, in quotes. Default is the only camera there is.
        id: The id that its producer gives it.
        model: Name of its model.
        features: Its settings by the names that it has for them, set in this order, as in {PixelFormat: Mono8,
            ExposureTime: 5000}; a command is given true.
        timeout_s: A producer that does not answer for so long is ended, and the camera opened anew.
    """

    producer: Path | None = None
    serial: str | None = None
    id: str | None = None
    model: str | None = None
    features: dict[str, int | float | str | bool] = field(default_factory=dict)
    timeout_s: float = 10.0
    needs: ClassVar[tuple[str, str] | None] = ("harvesters", "genicam")

    def check(self) -> None:
        super().check()
        self.producers()
        if not self.timeout_s >= 1:
            raise UserError("timeout_s has to be 1 or more.")

    def producers(self) -> Sequence[Path]:
        """Raises UserError where there is none."""
        if self.producer is not None:
            if not self.producer.is_file():
                raise UserError(f"there is no producer {self.producer}.")
            return [self.producer]
        folders = [Path(each) for each in os.environ.get(PRODUCERS, "").split(os.pathsep) if each]
        if not (found := sorted(file for folder in folders for file in folder.glob("*.cti"))):
            raise UserError(f"there is no .cti file in the folders of {PRODUCERS}: install the GenTL producer of your "
                            "camera's vendor, or name its file as producer.")  # fmt: skip
        return found

    def wanted(self) -> dict[str, str]:
        """What tells the camera from others, by the names that GenTL has for it."""
        said = {"serial_number": self.serial, "id_": self.id, "model": self.model}
        return {name: value for name, value in said.items() if value is not None}

    def owns(self) -> Sequence[str]:
        return [f"the GenICam camera {' '.join(self.wanted().values()) or 'that is the only one'}"]


@dataclass(frozen=True)
class Push(Options):
    """Images that another program posts to the line's HTTP: `POST /api/stations/NAME/parts`, the image as body.

    Attributes:
        max_image_mb: Size limit of an image, in MiB.
    """

    max_image_mb: int = 16
