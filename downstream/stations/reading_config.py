"""The lists of stations and sinks of a line's YAML, as dataclasses: unknown keys are answered with the nearest one."""

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from downstream.stations.catalogue import FAMILIES, Family
from downstream.stations.config import Config, Line, SinkOf, Station
from downstream.stations.options import LARGEST, Options, Secret
from pretrain.command import Names, UserError, nearest

NAME = re.compile(r"[\w][\w.-]{0,63}", re.ASCII)
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
Read = TypeVar("Read")


def read_line(config: Config) -> Line:
    """What the lists say. Raises UserError, which names the place, for what they must not say."""
    if not config.stations:
        raise UserError("no station is named: give a file with --config, as docs/line.md shows.")
    stations = [_station(values, f"stations[{place}]") for place, values in enumerate(config.stations)]
    names = [station.name for station in stations]
    sinks = [_sink(values, f"sinks[{place}]", names) for place, values in enumerate(config.sinks)]
    for what, called in (("stations", names), ("sinks", [sink.name for sink in sinks])):
        if twice := [name for name in called if called.count(name) > 1]:
            raise UserError(f"two {what} are called {twice[0]}: give each a name of its own.")
    for name in config.only:
        if name not in names:
            raise UserError(f"--only: there is no station {name}; {nearest(name, names)}")
    return Line([station for station in stations if not config.only or station.name in config.only], sinks)


def check_words(config: Config) -> None:
    """Raises UserError for a mistake in the lists, before anything heavy is imported."""
    if config.schema is None:
        read_line(config)


def _station(values: object, where: str) -> Station:
    station = read_fields(Station, values, where)
    _check_name(station.name, where)
    checks = {
        "frames": station.frames >= 1, "queue": station.queue >= 1, "budget_ms": station.budget_ms > 0,
        "silence_s": station.silence_s is None or station.silence_s > 0,
    }  # fmt: skip
    for name, is_right in checks.items():
        if not is_right:
            raise UserError(f"{where}.{name}: {getattr(station, name)} makes no station: give a number above 0.")
    return station


def _sink(values: object, where: str, stations: list[str]) -> SinkOf:
    """Its own options stand beside name and stations."""
    values = dict(_mapping(values, where))
    name, wanted = values.pop("name", values.get("type", "")), values.pop("stations", stations)
    sink = SinkOf(_value(str, name, f"{where}.name"), _value(Names, wanted, f"{where}.stations"),
                  _options("sink", values, where, also=("name", "stations")))  # fmt: skip
    _check_name(sink.name, where)
    for station in sink.stations:
        if station not in stations:
            raise UserError(f"{where}.stations: there is no station {station}; {nearest(station, stations)}")
    return sink


def _check_name(name: str, where: str) -> None:
    """Names become folders, topics and parts of URLs."""
    if not NAME.fullmatch(name):
        raise UserError(f"{where}.name: {name!r} is no name: use letters, digits, dots, dashes and underscores.")


def _options(family: Family, values: object, where: str, also: tuple[str, ...] = ()) -> Options:
    """Of what `type` says."""
    values, kinds = dict(_mapping(values, where)), FAMILIES[family]
    if "type" not in values:
        raise UserError(f"{where}: it has no type; {nearest('', kinds)}")
    kind = values.pop("type")
    if kind not in kinds:
        raise UserError(f"{where}.type: there is no {family} {kind}; {nearest(str(kind), kinds)}")
    options = read_fields(kinds[kind].options, values, where, ("type", *also))
    try:
        options.check()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return options


def read_fields(kind: type[Read], values: object, where: str, also: tuple[str, ...] = ()) -> Read:
    """A dataclass of a mapping; `also` are keys that may stand there and are another's. Raises UserError."""
    values, hints = _mapping(values, where), get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    for key in values:
        if key not in names:
            raise UserError(f"{where}: there is no key {key}; {nearest(str(key), [*names, *also])}")
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}: {field.name} must be given.")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}", name) for name, value in values.items()})


def _value(hint: Any, value: object, where: str, name: str = "") -> Any:
    """`value` as `hint` wants it. Raises UserError."""
    if hint is Options:
        return _options("trigger" if name == "trigger" else "source", value, where)
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UserError(f"{where}: there is no {value}; {nearest(str(value), get_args(hint))}")
        return value
    if get_origin(hint) is dict:
        _, kinds = get_args(hint)
        return {_value(str, key, where): _plain(each, f"{where}.{key}", kinds)
                for key, each in _mapping(value, where).items()}  # fmt: skip
    if hint is Secret:
        if isinstance(value, str):
            raise UserError(f"{where}: a secret never stands here: write {{file: PATH}} or {{env: NAME}}.")
        return read_fields(Secret, value, where)
    if hint is Names and isinstance(value, str | list | tuple):
        return Names(value)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    # YAML reads 1e-4 as a text, and a truth value is a whole number to Python.
    if hint in (int, float) and type(value) in (int, hint):
        if not abs(value) <= LARGEST:  # nor is no number at all below it
            raise UserError(f"{where}: {value!s:.12} is no number for a line: give one up to {LARGEST:g}.")
        return hint(value)
    if hint in (str, bool) and type(value) is hint:
        return value
    raise UserError(f"{where} must be {WORDS.get(hint, 'names' if hint is Names else hint.__name__)}, not {value!r}.")


def _plain(value: object, where: str, kinds: UnionType) -> Any:
    """One of several plain types, as it stands. Raises UserError."""
    if type(value) not in get_args(kinds):
        raise UserError(f"{where} must be a number, text, or true or false, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is no number: leave it out.")
    return value


def _mapping(values: object, where: str) -> Mapping:
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be keys and values, not {values!r}.")
    return values
