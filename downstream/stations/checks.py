"""A line is looked at before it starts: models, ports, extras, what does not go together, who does not answer."""

import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from downstream.methods.catalogue import imported
from downstream.service.access import is_loopback
from downstream.service.models import LoadedModel, Models
from downstream.service.secret import token_in
from downstream.service.users import users_in
from downstream.stations.catalogue import entry_of
from downstream.stations.config import Config, Line, Station
from downstream.stations.model import model_named
from downstream.stations.options import Address, Options
from downstream.stations.sources.config import Push
from downstream.stations.triggers.config import Call, Every
from pretrain.command import UserError, installed_by, nearest
from pretrain.data.channels import PLAIN

ANSWER_S = 2.0


def check(config: Config, line: Line) -> None:
    """Raises UserError for a line that could not run."""
    parts = parts_of(line)
    for where, options in parts:
        if options.needs and find_spec(options.needs[0]) is None:
            raise UserError(f"{where}: it needs {options.needs[0]}: {installed_by(options.needs[1])}.")
    _check_ports(config, parts)
    owners: dict[str, str] = {}
    for where, options in parts:
        for owned in options.owns():
            if (other := owners.setdefault(owned, where)) != where:
                raise UserError(f"{other} and {where} have one and the same, {owned}: give each its own.")
    _check_stations(config, line)
    if min(config.batch_size, config.images_mb) < 1 or (config.threads is not None and config.threads < 1):
        raise UserError("--batch-size, --images-mb and --threads have to be 1 or more.")


def check_models(config: Config, line: Line) -> None:
    """Raises UserError for a model that cannot be read, and for one that can judge nothing of its station's camera."""
    models = Models(config.models, config.batch_size, config.device)
    for station in line.stations:
        check_frames(station, models.load(model_named(models, station.model)))


def check_frames(station: Station, loaded: LoadedModel) -> None:
    """Raises UserError where each part would be a fault: cameras give 8 bits."""
    channels = loaded.inspector.channels
    if channels != PLAIN and imported(entry_of(station.source).path).gives_pixels:
        raise UserError(
            f"station {station.name}: a camera gives 8 bits a channel, and the model {loaded.name} judges {channels}: "
            "fit one to images of 8 bits, or give it files, by a source folder or push."
        )


def unanswered(line: Line) -> list[str]:
    """A warning for each receiver and camera that does not answer; it may be there when it is needed."""
    missing = []
    for station in line.stations:
        source = imported(entry_of(station.source).path)
        missing.append((f"station {station.name}, source", source.what_is_missing(station.source)))
    asked = [(where, address) for where, options in parts_of(line) for address in options.reaches()]
    with ThreadPoolExecutor(16) as pool:
        reasons = pool.map(lambda each: _refusal(each[1]), asked)
        warnings = [f"{where}: nobody answers at {address} ({reason})"
                    for (where, address), reason in zip(asked, reasons, strict=True) if reason]  # fmt: skip
        return [*(f"{where}: {reason}" for where, reason in missing if reason), *warnings]


def parts_of(line: Line) -> list[tuple[str, Options]]:
    """Everything that has options, by the name that a person knows it by."""
    found: list[tuple[str, Options]] = []
    for station in line.stations:
        found += [(f"station {station.name}, source", station.source)]
        found += [(f"station {station.name}, trigger", station.trigger)]
    return found + [(f"sink {sink.name}", sink.options) for sink in line.sinks]


def _check_ports(config: Config, parts: list[tuple[str, Options]]) -> None:
    holders = defaultdict(list)
    for where, options in parts:
        for address in options.listens():
            holders[address.port].append((address.host, where))
            if not 0 <= address.port < 65536:
                raise UserError(f"{where}: there is no port {address.port}: give 0 to 65535.")
    if config.port is not None:
        holders[config.port].append((config.host, "the line's own HTTP"))
        if not 0 <= config.port < 65536:
            raise UserError(f"there is no port {config.port}: give 0 to 65535.")
        token, users = token_in(config.token_file), users_in(config.users)
        if not is_loopback(config.host) and token is None and not users:
            raise UserError(
                f"--host {config.host} is reached from other machines: give --token-file FILE or HELDOUT_TOKEN, "
                "or --users."
            )
    for port, holding in holders.items():
        if port and len(holding) > 1:
            raise UserError(f"{holding[0][1]} and {holding[1][1]} have one port, {port}: give each its own.")


def _check_stations(config: Config, line: Line) -> None:
    models = Models(config.models, config.batch_size)
    for station in line.stations:
        name = model_named(models, station.model)
        if name not in models.names():
            raise UserError(
                f"station {station.name}: there is no model {name} in {config.models}; {nearest(name, models.names())}"
            )
        if config.port is None and (isinstance(station.source, Push) or isinstance(station.trigger, Call)):
            raise UserError(f"station {station.name} is reached over the line's HTTP: give it a port.")
        source = imported(entry_of(station.source).path)
        if source.names_parts and (station.frames > 1 or not isinstance(station.trigger, Every)):
            raise UserError(
                f"station {station.name}: each image of its source is a part; leave out frames and trigger."
            )


def _refusal(address: Address) -> str | None:
    try:
        with socket.create_connection(address, ANSWER_S):
            return None
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
