"""The options of every sink. Nothing heavy is imported here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from downstream.service.audit.config import DEFAULT_RESULTS
from downstream.stations.broker import PAHO, Broker, check_topic
from downstream.stations.options import Address, Options, Secret, address_in
from pretrain.command import Names, UserError

WEB = ("http", "https")


@dataclass(frozen=True)
class Stdout(Options):
    """Each signal as a line of JSON on standard output."""


@dataclass(frozen=True)
class Csv(Options):
    """Each signal as a row of a file, which a spreadsheet opens.

    Attributes:
        path: The file; rows are added to one that is there.
    """

    path: Path

    def owns(self) -> Sequence[str]:
        return [f"the file {self.path.resolve()}"]

    def check(self) -> None:
        if self.path.is_dir():
            raise UserError(f"path {self.path} is a folder: name a file.")


@dataclass(frozen=True)
class Images(Options):
    """The images, sorted into FOLDER/STATION/pass, fail and fault, each with its signal beside it as JSON.

    Attributes:
        path: The folder.
        verdicts: Only the images of these.
    """

    path: Path
    verdicts: Names = Names("pass,fail,fault")

    def check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"path {self.path} is no folder.")
        check_verdicts(self.verdicts, "pass", "fail", "fault")


@dataclass(frozen=True)
class Webhook(Options):
    """Each signal as a POST of JSON, with its id as Idempotency-Key.

    Attributes:
        url: Where to, without a password.
        secret: With one, each POST has X-Heldout-Signature: sha256=HMAC of timestamp, a dot and body.
        timeout_s: Seconds until an answer that does not come is given up.
    """

    url: str
    secret: Secret | None = None
    timeout_s: float = 5.0

    def check(self) -> None:
        super().check()
        address_in(self.url, WEB)
        if self.timeout_s <= 0:
            raise UserError("timeout_s has to be above 0.")

    def reaches(self) -> Sequence[Address]:
        return [address_in(self.url, WEB)]


@dataclass(frozen=True)
class Database(Options):
    """The results of the service, whose page then shows them as its own, to be reviewed too. Faults are no results of
    a model, and are left out.

    Attributes:
        results: A SQLite file, or postgresql://USER@HOST/NAME.
        password: The password for PostgreSQL, from a file or the environment.
        kept_images: Folder that the service has by this name; people can only correct what was kept there. Default is
            to keep none.
        keep: Images of these verdicts are kept in it.
        free_gb: None is kept that would leave less than so much room on its disk, in GiB.
    """

    results: str = DEFAULT_RESULTS
    password: Secret | None = None
    kept_images: Path | None = None
    keep: Names = Names("pass,fail")
    free_gb: float = 10.0

    def check(self) -> None:
        super().check()
        if self.kept_images is not None and self.kept_images.exists() and not self.kept_images.is_dir():
            raise UserError(f"kept_images {self.kept_images} is no folder.")
        check_verdicts(self.keep, "pass", "fail")
        if self.free_gb < 0:
            raise UserError("free_gb may not be below 0.")

    def reaches(self) -> Sequence[Address]:
        return [address_in(self.results, ["postgresql"])] if "://" in self.results else ()


@dataclass(frozen=True)
class Mqtt(Broker, Options):
    """Each signal as JSON to an MQTT 5 broker at QoS 1; states beside them, and a last will.

    Attributes:
        url: mqtt://HOST, or mqtts://HOST for TLS, with a port where it is not 1883 or 8883.
        user: Who the line is to the broker. Default is nobody.
        password: From a file or the environment.
        ca: File of certificates that the broker's is checked against. Default is the system's.
        topic: What the topics begin with: TOPIC/STATION/signal, TOPIC/STATION/state and TOPIC/status. Each line has
            its own.
        sparkplug: GROUP/NODE: beside those topics the line is this edge node of Sparkplug B, each station a device of
            it; its death takes the place of TOPIC/status. Each line has its own.
    """

    needs: ClassVar[tuple[str, str] | None] = PAHO
    topic: str = "heldout"
    sparkplug: str = ""

    def check(self) -> None:
        super().check()
        self.check_broker()
        check_topic(self.topic)
        if self.sparkplug:
            check_topic(self.sparkplug)
            if self.sparkplug.count("/") != 1:
                raise UserError(f"sparkplug {self.sparkplug!r} is no edge node: write GROUP/NODE.")

    def owns(self) -> Sequence[str]:
        node = [f"the edge node {self.sparkplug} at {self.address()}"] if self.sparkplug else []
        return [f"the topic {self.topic} at {self.address()}", *node]

    def reaches(self) -> Sequence[Address]:
        return [self.address()]


@dataclass(frozen=True)
class Modbus(Options):
    """A Modbus TCP server that a PLC polls for the newest verdict. It can be read alone.

    Attributes:
        host: Address to listen at. Modbus knows no password: beyond this machine only in a network of controllers.
        port: Port; Modbus's own is 502, which takes rights.
        fresh_s: So long a verdict is shown, then a fault.
    """

    needs: ClassVar[tuple[str, str] | None] = ("pymodbus", "plc")
    host: str = "127.0.0.1"
    port: int = 5020
    fresh_s: float = 5.0

    def check(self) -> None:
        if not self.fresh_s > 0:
            raise UserError("fresh_s has to be above 0.")

    def listens(self) -> Sequence[Address]:
        return [Address(self.host, self.port)]


@dataclass(frozen=True)
class OpcUa(Options):
    """An OPC UA server that a PLC reads for the newest verdict, or subscribes to. It can be read alone.

    Attributes:
        host: Address to listen at. There is no password and no encryption: beyond this machine only in a network of
            controllers.
        port: Port.
        fresh_s: So long a verdict is shown, then a fault.
    """

    needs: ClassVar[tuple[str, str] | None] = ("asyncua", "plc")
    host: str = "127.0.0.1"
    port: int = 4840
    fresh_s: float = 5.0

    def check(self) -> None:
        if not self.fresh_s > 0:
            raise UserError("fresh_s has to be above 0.")

    def listens(self) -> Sequence[Address]:
        return [Address(self.host, self.port)]


def check_verdicts(verdicts: Names, *known: str) -> None:
    """Raises UserError for one that is none."""
    if unknown := {*verdicts} - {*known}:
        raise UserError(f"there is no verdict {min(unknown)} here; choose from {', '.join(sorted(known))}.")
