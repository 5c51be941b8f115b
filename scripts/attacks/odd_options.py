"""Commands that write, with an odd option or two more: each does as it is told or says in a sentence why not, with
the memory of an ordinary machine, and leaves nothing half."""

import os
import random
import resource
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from downstream.inspection.results import SOMETHING_UNREADABLE
from scripts.attacks.attack import Attack, traceback_in
from scripts.attacks.command_lines import config_of
from scripts.attacks.damage import NESTED
from scripts.attacks.material import CATEGORY, Material, Started
from scripts.attacks.writers import WRITERS

SECONDS, SECONDS_OF_MUCH, MEMORY_BYTES = 120, 15, 16 << 30
# What starts other machines, servers or GPUs, or writes beside the output.
LEFT_ALONE = ("address", "track", "device", "compile")
NUMBERS = ("-1", "0", "1", "2", "3", "65", "100000", "1e5", "9223372036854775808", "nan")
FRACTIONS = ("-1", "0", "1e-308", "0.001", "0.5", "1", "1.5", "1e308", "inf", "nan")
TEXTS = ("", "0", "all", "none", "random", "mean", "k=1", "k=-1", "k=nan", "=", ",", "../..", "<b>", "ä" * 300,
         "\n", CATEGORY, f"{CATEGORY},nothing", "red", "1,2", "{}", "%s", "$HOME", "-")  # fmt: skip
# Who asks for so much may get it: to go on for long is then no fault.
MUCH = {"100000", "1e5", "9223372036854775808", "1e308", "inf"}


class OddOptions(Attack):
    """One try is one command, run to its end; the commands take turns."""

    unit = "a command with odd options"

    def __init__(self, material: Material) -> None:
        self._material = material

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        name = list(WRITERS)[self.number % len(WRITERS)]
        writer, out = WRITERS[name], folder / name
        writer.prepare(self._material, out)
        words = [str(word) for word in writer.words(self._material, out)]
        options = odd_options(config_of(words), folder, chance)
        (folder / "typed.txt").write_text(shlex.join([*words, *options]))
        said = f"{name} {shlex.join(options)}"
        process = Started(*words, *options)
        try:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            is_much = bool(MUCH.intersection(options))
            _, error = process.communicate(SECONDS_OF_MUCH if is_much else SECONDS)
        except subprocess.TimeoutExpired:
            return None if is_much else f"{said}: it is not at its end after {SECONDS} s"
        finally:
            process.kill()
        if failed := traceback_in(error):
            return f"{said}: {failed}"
        if process.returncode not in (*writer.ends_with, 2, SOMETHING_UNREADABLE):
            return f"{said}: exit code {process.returncode}: {error[-300:]}"
        if process.returncode == 2 and "error: " not in error:
            return f"{said}: it does not say what is wrong: {error[-300:]}"
        left = [str(path.relative_to(folder)) for path in folder.rglob(".*.part")]
        return f"{said}: leaves {left}" if left else None


def odd_options(config: type, folder: Path, chance: random.Random) -> list[str]:
    """One to three options of a command, as they are typed."""
    hints = get_type_hints(config)
    mine = [each for each in fields(config) if each.name not in LEFT_ALONE and not each.metadata.get("positional")]
    typed = []
    for field in chance.sample(mine, min(len(mine), chance.choice((1, 1, 1, 2, 3)))):
        typed += odd_option(field, hints[field.name], folder, chance)
    return typed


def odd_option(field: Field, hint: object, folder: Path, chance: random.Random) -> list[str]:
    flag = "--" + field.name.replace("_", "-")
    kinds = {hint, *get_args(hint)}
    if bool in kinds:
        return [chance.choice((flag, flag.replace("--", "--no-", 1)))]
    if choices := [choice for each in kinds if get_origin(each) is Literal for choice in get_args(each)]:
        return [flag, chance.choice([*map(str, choices), "nothing"])]
    if Path in kinds or field.name in ("out", "data"):  # in the folder, since it may be written
        return [flag, str(chance.choice(PLACES)(folder))]
    if int in kinds or float in kinds:
        return [flag, chance.choice(NUMBERS if int in kinds else FRACTIONS)]
    return [flag, chance.choice(TEXTS)]


def nowhere(folder: Path) -> Path:
    return folder / "nowhere" / "at all"


def nothing(folder: Path) -> Path:
    (folder / "nothing").mkdir(exist_ok=True)
    return folder / "nothing"


def of(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def pipe(folder: Path) -> Path:
    if not (folder / "pipe").exists():
        os.mkfifo(folder / "pipe")
    return folder / "pipe"


def loop(folder: Path) -> Path:
    (folder / "loop").unlink(missing_ok=True)
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


PLACES = (
    nowhere,
    nothing,
    pipe,
    loop,
    of("file", b"of the user"),
    of("empty", b""),
    of("nested.json", NESTED),
    of("object.json", b"{}"),
    of("text.yaml", b"a: 1"),
    lambda folder: folder / ("a" * 300),
    lambda folder: folder / "new\nline",
    lambda folder: folder / "<b>&amp;%s",
    lambda folder: "",
    lambda folder: folder,
)
