"""How an MQTT broker is reached: the options that the sink and the trigger share. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path

from downstream.stations.options import Address, Secret, address_in
from pretrain.command import UserError

SCHEMES = ("mqtt", "mqtts")
PAHO = ("paho", "plc")


@dataclass(frozen=True)
class Broker:
    """Beside the options of a part of the line, which come after these.

    Attributes:
        url: mqtt://HOST, or mqtts://HOST for TLS, with a port where it is not 1883 or 8883.
        user: Who the line is to the broker. Default is nobody.
        password: From a file or the environment.
        ca: File of certificates that the broker's is checked against. Default is the system's.
    """

    url: str
    user: str = ""
    password: Secret | None = None
    ca: Path | None = None

    def address(self) -> Address:
        return address_in(self.url, SCHEMES)

    @property
    def has_tls(self) -> bool:
        return self.url.startswith("mqtts:")

    def check_broker(self) -> None:
        """Raises UserError for what reaches none."""
        self.address()
        if self.password is not None and not self.user:
            raise UserError("a password needs a user.")
        if self.ca is not None and not self.has_tls:
            raise UserError("ca is for TLS: write mqtts:// before the host.")
        if self.ca is not None and not self.ca.is_file():
            raise UserError(f"ca: there is no file {self.ca}.")


def check_topic(topic: str) -> None:
    """Raises UserError for one that nothing can be published to."""
    if not topic or {*topic} & {*"+#\0"} or topic.startswith(("$", "/")) or topic.endswith("/"):
        raise UserError(f"topic {topic!r} is none to publish to: write it as plant/line, without + and #.")
