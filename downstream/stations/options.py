"""What the options of all parts of a line share: secrets that are never typed, addresses that are known beforehand."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from downstream.service.secret import secret_in
from pretrain.command import UserError

# Of numbers: no wait is longer than the system's clocks can count, and .nan and .inf are none.
LARGEST = 1e9
PORTS = {
    "http": 80,
    "https": 443,
    "rtsp": 554,
    "rtsps": 322,
    "mqtt": 1883,
    "mqtts": 8883,
    "opc.tcp": 4840,
    "postgresql": 5432,
}


@dataclass(frozen=True)
class Secret:
    """A secret that stands elsewhere: exactly one of the two is given.

    Attributes:
        file: File whose first line it is.
        env: Environment variable that has it.
    """

    file: Path | None = None
    env: str | None = None

    def value(self) -> str:
        """Raises UserError where it is not there, or empty."""
        if (self.file is None) == (self.env is None):
            raise UserError("a secret is {file: PATH} or {env: NAME}, one of the two.")
        value = secret_in(self.file) if self.file is not None else os.environ.get(self.env, "")
        if not value:
            where = f"the file {self.file}" if self.file is not None else f"the environment variable {self.env}"
            raise UserError(f"there is no secret in {where}: put it there before the line starts.")
        return value


class Address(NamedTuple):
    """Where a part of the line listens, or what it reaches."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Options:
    """Of any part. What a kind of part does differs by the methods; its fields are its keys in the YAML.

    `needs` is the module of an extra, with the extra's name, that `--check` says is missing."""

    needs: ClassVar[tuple[str, str] | None] = None

    def check(self) -> None:
        """Raises UserError for values that make no such part. Secrets are read here too, so that a missing one is said
        before anything starts."""
        for value in vars(self).values():
            if isinstance(value, Secret):
                value.value()

    def owns(self) -> Sequence[str]:
        """What no other part of the line may have too, in words."""
        return ()

    def listens(self) -> Sequence[Address]:
        """Where it opens a port. No two parts may open the same; port 0, any free one, is no conflict."""
        return ()

    def reaches(self) -> Sequence[Address]:
        """What it connects to: `--check` warns where nobody answers there."""
        return ()


def address_in(url: str, schemes: Sequence[str]) -> Address:
    """Whom a URL reaches. Raises UserError for none, and for one that has a password in it."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:  # of a port that is none
        parts, port = urlsplit(""), 0
    if parts.scheme not in schemes or not parts.hostname:
        raise UserError(f"{without_password(url)} is no address: write {schemes[0]}://HOST.")
    if parts.password is not None:
        raise UserError(
            f"{without_password(url)} has a password in it: leave it out, and name a file or a variable "
            "that has it as password: {file: PATH} or {env: NAME}."
        )
    return Address(parts.hostname, port)


def without_password(url: str) -> str:
    """For people's eyes."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else url
