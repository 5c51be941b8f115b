"""What every command shares: a frozen dataclass becomes flags and YAML keys, a mistake becomes one sentence."""

import difflib
import gc
import inspect
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from pretrain.reading import MAX_YAML_BYTES, check_yaml, read_regular

Config = TypeVar("Config")


class UserError(Exception):
    """Something the user can put right. Its text names the value, what is allowed, and what to do next."""


class Stopped(Exception):
    """Somebody asked a training to stop, and all of it is saved. Its text says how far it came."""


# What cuBLAS, cuDNN and CUDA say where a GPU is full: torch has a class for its own allocator alone.
GPU_IS_FULL = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def is_gpu_full(error: BaseException) -> bool:
    """Whether torch, which is not imported here, says that a GPU's memory does not suffice."""
    is_torchs = type(error).__name__ == "OutOfMemoryError"
    return is_torchs or isinstance(error, RuntimeError) and any(words in str(error) for words in GPU_IS_FULL)


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


def installed_by(extra: str) -> str:
    """What to type for an extra of setup.cfg. In the checkout, as the package is in no registry: under its name another
    one might be there."""
    return f"pip install -e '.[{extra}]' in the checkout"


def start(main: str, config: type, check: Callable[[Config], None] = lambda config: None) -> NoReturn:
    """What a runnable file does first of all: read the command line, and only then import what is heavy, so that
    `--help`, a mistyped flag and what `check` refuses answer at once. `main` is `package.module:function`."""

    def checked(config: Config) -> int | None:
        check(config)
        return _imported(main)(config)

    _forget_repeated_path()
    sys.exit(run_command(checked, config))


def start_commands(commands: Mapping[str, tuple[str, type]]) -> NoReturn:
    """`start` for a file with several commands."""
    _forget_repeated_path()
    sys.exit(run_commands({name: (_imported(main), config) for name, (main, config) in commands.items()}))


def _forget_repeated_path() -> None:
    """A runnable file puts its checkout first on the path. Installed, that is site-packages, which must not come before
    the standard library and is on the path already."""
    if sys.path[0] in sys.path[1:]:
        del sys.path[0]


def _imported(main: str) -> Callable[[Config], int | None]:
    """A function that is imported when it is called."""
    module, _, function = main.partition(":")

    def call(config: Config) -> int | None:
        # Millions of objects that stay: to look through them for garbage, again and again, was a tenth of the time.
        gc.disable()
        try:
            imported = import_module(module)
        finally:
            gc.freeze()
            gc.enable()
        return getattr(imported, function)(config)

    return call


def run_command(
    main: Callable[[Config], int | None], config_class: type[Config], arguments: Sequence[str] | None = None
) -> int:
    """Read a Config from the command line and call `main` with it. Returns the exit code: 2 for a user's mistake,
    70 for a fault of ours, 130 after Ctrl-C, 141 where nobody reads on, else what `main` returns (None is 0). So a
    command alone says 1. Defaults < `--config x.yaml` < flags."""
    try:
        return main(read_config(config_class, arguments)) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped)
        return 130
    except BrokenPipeError:  # whoever read the output has gone
        return 141
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if lacking := _lacking(error):
            print(f"error: {lacking}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print("error: this is a fault of heldout; please report it with the lines above.", file=sys.stderr)
        return 70


def _lacking(error: Exception) -> str | None:
    """What the machine or its disk does not give, as a sentence; none where that is not what went wrong."""
    if isinstance(error, OSError):  # a full disk, a folder in the way of a file, a missing permission
        return f"{error}; put that right, or name another path."
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # as pathlib says it until Python 3.13
        return f"{error}; name another path."
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return "the memory does not suffice; close other programs, or ask for less at once."
    if is_gpu_full(error):
        wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
        more = f" for {wanted[1]} more" if wanted else ""
        return f"the GPU's memory does not suffice{more}; ask for less at once, or give --device cpu."
    return None


def run_commands(commands: Mapping[str, tuple[Callable, type]], arguments: Sequence[str] | None = None) -> int:
    """`run_command` for a file with several commands, the first word says which: `python detect.py fit --data ...`."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    name = typed[0] if typed else "--help"
    if name in commands:
        return run_command(*commands[name], typed[1:])
    if name in ("-h", "--help"):
        print(f"usage: {Path(sys.argv[0]).name} {{{','.join(commands)}}} [options]\n")
        for command, (_, config_class) in commands.items():
            print(f"  {command:10}{' '.join((config_class.__doc__ or '').split('Attributes:')[0].split())}")
        print("\nEach of them explains itself with --help.")
        return 0
    print(f"error: there is no command {name}; {nearest(name, commands)}", file=sys.stderr)
    return 2


def read_config(config_class: type[Config], arguments: Sequence[str] | None = None) -> Config:
    """A dataclass as the command line (default: sys.argv) and its `--config` file describe it.

    A bool field is a bare flag, with a `--no-` form; a field without default must be given; one whose metadata says
    `positional` takes all that is typed without a flag, and `aliases` in it are other flags for the field.
    """
    # 0.2 s that everybody does without who imports this module only to raise UserError.
    import docstring_parser
    import jsonargparse
    from jsonargparse.typing import register_type

    register_type(Names, str, Names, deserializer_exceptions=(TypeError,), fail_already_registered=False)
    register_type(Path, str, _path, fail_already_registered=False)
    types = get_type_hints(config_class)
    bare = {_flag(field.name) for field in fields(config_class) if field.metadata.get("positional")}

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, error: Exception | None = None) -> None:
            print(f"error: {_one_sentence(message, types, bare)}", file=sys.stderr)
            raise SystemExit(2)

    documented = docstring_parser.parse(config_class.__doc__ or "")
    # A runnable that builds on another one describes only what it adds.
    families = [docstring_parser.parse(inspect.cleandoc(base.__doc__ or "")) for base in reversed(config_class.__mro__)]
    described = {parameter.arg_name: parameter.description for family in families for parameter in family.params}
    parser = Parser(description=documented.short_description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of these options; flags typed beside it win.")
    for field in sorted(fields(config_class), key=lambda field: field.kw_only):  # what a command inherits comes last
        default = field.default if field.default_factory is MISSING else field.default_factory()
        shown = {"help": described[field.name]}
        if field.metadata.get("positional"):
            kept, *_ = get_args(types[field.name])  # tuple[kept, ...]
            parser.add_argument(field.name, nargs="*", type=kept, default=list(default), **shown)
            continue
        if default is MISSING:
            shown["required"] = True
        else:
            shown["default"] = default
        if bool in (types[field.name], *get_args(types[field.name])):
            shown["action"] = jsonargparse.ActionYesNo(no_prefix="no-")
        else:
            kept, *others = get_args(types[field.name]) or (types[field.name],)
            # A text that may be left out is typed as any text is: as `Path | None`, the folder `null` would be none.
            is_text = kept in (Path, str, Names) and others == [type(None)]
            shown["type"] = kept if is_text else types[field.name]
        parser.add_argument(_flag(field.name), **shown)
    typed = sys.argv[1:] if arguments is None else list(arguments)
    for file in _config_files(typed):
        try:
            # jsonargparse would wait for a pipe, and for ever for nested aliases. What is no file may be YAML itself.
            if os.path.lexists(path := os.path.expanduser(file)):
                check_yaml(read_regular(path, MAX_YAML_BYTES))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            parser.error(f"the file {file} of --config cannot be read ({reason}); name another one.")
    try:
        read = parser.parse_args(_known_flags(typed, config_class))
    except (UnicodeDecodeError, RecursionError) as error:
        reason = "nested without end" if isinstance(error, RecursionError) else error
        parser.error(f"the file of --config is no YAML ({reason}); name another one.")
    for name in types:
        if not _is_finite(read[name]):
            parser.error(f"{_flag(name)} must be of finite numbers, not {read[name]!r}.")
    return config_class(**{name: _of_type(read[name], types[name]) for name in types})


def _is_finite(value: object) -> bool:
    """Whether what YAML reads of .nan, .inf and 1e400 is no part of it: with a threshold of none of these, every image
    is good."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return all(math.isfinite(part) for part in parts if isinstance(part, float))


def _path(text: str) -> Path:
    """What an unset variable of the shell leaves is refused: it would be the folder that the user happens to be in."""
    if not text:
        raise ValueError("an empty name is no file and no folder.")
    return Path(text)


def _config_files(arguments: Sequence[str]) -> list[str]:
    pairs = [word.split("=", 1) if "=" in word else (word, after) for word, after in pairwise([*arguments, ""])]
    return [file for flag, file in pairs if flag == "--config" and file]


def _known_flags(arguments: Sequence[str], config_class: type) -> list[str]:
    """The command line with each alias as the flag that it stands for."""
    flags = {alias: _flag(field.name) for field in fields(config_class) for alias in field.metadata.get("aliases", ())}
    split = (argument.partition("=") for argument in arguments)
    return [flags.get(flag, flag) + equals + value for flag, equals, value in split]


def _of_type(value: object, hint: object) -> object:
    """jsonargparse gives a plain tuple where names are optional, and a list of what stands without a flag."""
    if isinstance(value, list) and get_origin(hint) is tuple:
        return tuple(value)
    return Names(value) if isinstance(value, tuple) and Names in (hint, *get_args(hint)) else value


def _one_sentence(message: str, types: dict[str, object], bare: Collection[str]) -> str:
    """What jsonargparse says in several lines, as a person would say it. `types` are the options by name, `bare` the
    flags that some would have, were they not typed without one."""
    message = " ".join(message.split())
    if unknown := re.search(r"unrecognized arguments: ([^\s=]+)", message):
        if unknown[1] in bare:
            return f"there is no option {unknown[1]}: what follows it is typed without one."
        return f"there is no option {unknown[1]}; {nearest(unknown[1], {*map(_flag, types)} - {*bare})}"
    if unknown := re.search(r"Option '([\w.-]+)' is not accepted", message):
        return f"there is no option {unknown[1]}; {nearest(unknown[1], types)}"
    if missing := re.search(r"arguments are required: (.+)", message):
        return f"{', '.join(_flag(name.strip()) for name in missing[1].split(','))} must be given."
    if (wrong := re.search(r'Parser key "(\w+)": .*(?:Got|Given) value: ?(.*)', message)) and wrong[1] in types:
        return f"{_flag(wrong[1])} must be {_in_words(types[wrong[1]])}, not {wrong[2]!r}."
    return re.sub(r'Parser key "(\w+)"', lambda key: _flag(key[1]), message.replace("Not of type Path: ", ""))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_type(name: str, value: object, hint: object) -> None:
    """Raise UserError for what Python gives in place of the type of an option; numpy's numbers are numbers."""
    if not _is_of(value, hint):
        raise UserError(f"{name} must be {_in_words(hint)}, not {value!r:.80}.")


def _is_of(value: object, hint: object) -> bool:
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) in (UnionType, Union):
        return any(_is_of(value, each) for each in get_args(hint))
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, get_origin(hint) or hint)


def _in_words(hint: object) -> str:
    """A type as the user reads it."""
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, choices))}"
    if get_origin(hint) is tuple:
        return f"a list of {len(choices)}, such as [{','.join('1' * len(choices))}]"
    if get_origin(hint) in (dict, Sequence):
        return "a dictionary" if get_origin(hint) is dict else "a list"
    if choices:
        return " or ".join(map(_in_words, choices))
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "True or False",
        Path: "a path",
        Names: "a list",
    }
    return words.get(hint, getattr(hint, "__name__", str(hint)))
