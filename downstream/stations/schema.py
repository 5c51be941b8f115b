"""The JSON schema of a line's YAML, made from the dataclasses that it is read into: editors complete keys by it."""

from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from downstream.stations.catalogue import FAMILIES, Family
from downstream.stations.config import Config, SinkOf, Station
from downstream.stations.options import LARGEST, Options, Secret
from pretrain.command import Names

PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "string"}
# What is said on the command line alone.
NOT_IN_A_FILE = ("check", "schema")


def line_schema() -> dict:
    """Of the file that `heldout line --config` reads."""
    schema = _object(Config)
    for name in NOT_IN_A_FILE:
        del schema["properties"][name]
    schema["properties"]["stations"] = {"type": "array", "items": _object(Station), "minItems": 1}
    schema["properties"]["sinks"] = {"type": "array", "items": {"oneOf": _kinds("sink", beside=SinkOf)}}
    schema["required"] = ["stations"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "heldout line", **schema}


def _kinds(family: Family, beside: type | None = None) -> list[dict]:
    """An object for each kind, told by its `type`."""
    described = []
    for name, entry in FAMILIES[family].items():
        schema = _object(entry.options)
        more = _object(beside)["properties"] if beside else {}
        more.pop("options", None)
        schema["properties"] = {"type": {"const": name}, **more, **schema["properties"]}
        schema["required"] = ["type", *schema["required"]]
        described.append(schema)
    return described


def _object(kind: type) -> dict:
    said = docstring_parser.parse(kind.__doc__ or "")
    words = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in said.params}
    hints, properties, required = get_type_hints(kind), {}, []
    for field in fields(kind):
        properties[field.name] = {**_schema_of(hints[field.name], field.name), "description": words[field.name]}
        if field.default is MISSING and field.default_factory is MISSING:
            required.append(field.name)
    return {"type": "object", "description": said.short_description, "properties": properties, "required": required,
            "additionalProperties": False}  # fmt: skip


def _schema_of(hint: Any, name: str) -> dict:
    if hint is Options:
        return {"oneOf": _kinds("trigger" if name == "trigger" else "source")}
    if get_origin(hint) in (Union, UnionType):
        (kept,) = (each for each in get_args(hint) if each is not NoneType)
        return {"anyOf": [_schema_of(kept, name), {"type": "null"}]}
    if get_origin(hint) is Literal:
        return {"enum": [*get_args(hint)]}
    if hint is Names:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    if get_origin(hint) is dict:
        kinds = [PLAIN[kind] for kind in get_args(get_args(hint)[1])]
        return {"type": "object", "additionalProperties": {"type": kinds}}
    if hint is Secret:
        return _object(Secret)
    bounds = {"minimum": -LARGEST, "maximum": LARGEST} if hint in (int, float) else {}
    return {"type": PLAIN.get(hint, "array"), **bounds}
