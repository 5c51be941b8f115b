"""What every command shares: a frozen dataclass becomes flags and YAML keys, a mistake becomes one sentence."""

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import TypeVar, get_type_hints

Config = TypeVar("Config")


class Mistake(Exception):
    """Something the user can put right. Its text names the value, what is allowed, and what to do next."""


class Names(tuple):
    """Names as a user types them: `bottle,pill,wood` on the command line, a list or the same text in YAML."""

    def __new__(cls, names: str | Iterable[str] = ()) -> "Names":
        listed = names.split(",") if isinstance(names, str) else map(str, names)
        return super().__new__(cls, dict.fromkeys(name.strip() for name in listed if name.strip()))

    def __str__(self) -> str:
        return ",".join(self)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """How to go on after a mistyped name: the allowed one nearest to it, or all of them."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(allowed)}."


def run_command(
    main: Callable[[Config], int | None], kind: type[Config], arguments: Sequence[str] | None = None
) -> int:
    """Read `kind` from the command line and call `main` with it. Returns the exit code: 2 for a user's mistake,
    130 after Ctrl-C, else what `main` returns (None is 0). Defaults < `--config x.yaml` < flags."""
    try:
        return main(read_config(kind, arguments)) or 0
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130


def read_config(kind: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """The dataclass `kind` as the command line (default: sys.argv) and its `--config` file describe it.

    A bool field is a bare flag, with a `--no-` form; a field without default must be given.
    """
    import docstring_parser
    import jsonargparse
    from jsonargparse.typing import register_type

    register_type(Names, str, Names, deserializer_exceptions=(TypeError,), fail_already_registered=False)
    names = [field.name for field in fields(kind)]

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, error: Exception | None = None) -> None:
            print(f"error: {_one_sentence(message, names)}", file=sys.stderr)
            raise SystemExit(2)

    documented = docstring_parser.parse(kind.__doc__ or "")
    described = {parameter.arg_name: parameter.description for parameter in documented.params}
    types = get_type_hints(kind)
    parser = Parser(description=documented.short_description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of these options; flags typed beside it win.")
    for field in fields(kind):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        shown = {"help": described[field.name]}
        if default is MISSING:
            shown["required"] = True
        else:
            shown["default"] = default
        if types[field.name] is bool:
            shown["action"] = jsonargparse.ActionYesNo(no_prefix="no-")
        else:
            shown["type"] = types[field.name]
        parser.add_argument("--" + field.name.replace("_", "-"), **shown)
    read = parser.parse_args(None if arguments is None else list(arguments))
    return kind(**{name: read[name] for name in names})


def _one_sentence(message: str, names: list[str]) -> str:
    """jsonargparse's several lines as one, with the nearest option where one was mistyped."""
    message = " ".join(message.split()).replace("typing.", "")
    unknown = re.search(r"(?:unrecognized arguments: --|Option ')([\w-]+)", message)
    if not unknown:
        return message
    flag = message.startswith("unrecognized")
    options = ["--" + name.replace("_", "-") for name in names] if flag else names
    typed = "--" + unknown[1] if flag else unknown[1]
    return f"there is no option {typed}; {nearest(typed, options)}"
