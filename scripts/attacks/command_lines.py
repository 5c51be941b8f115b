"""Command lines made up from the options of every command: each is read, or refused in one line with exit code 2."""

import ast
import contextlib
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

from heldout import COMMANDS
from pretrain.command import UserError, read_config
from scripts.attacks.attack import Attack
from scripts.attacks.material import REPOSITORY, Material

VALUES = ("", "0", "-1", "1e308", "nan", "inf", "null", "true", "[]", "{}", "[1,2", "a,b", "../..", "/dev/zero",
          "\x00", "ä" * 500, "--help", "-", "${HOME}", "!!python/object:os.system", "&a *a", "1" * 5000, "@file",
          "'", '"', "yes")  # fmt: skip


class CommandLines(Attack):
    """One try is one command line, read in this process."""

    unit = "a command line"

    def __init__(self, material: Material) -> None:
        files = [REPOSITORY / f"{module.replace('.', '/')}.py" for module in COMMANDS.values()]
        self._configs = [
            config for file in [*files, *sorted(REPOSITORY.glob("scripts/*.py"))] for config in typed(file)
        ]

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        config = chance.choice(self._configs)
        words = []
        for _ in range(chance.randrange(1, 5)):
            name = chance.choice(fields(config)).name.replace("_", "-")
            name = name if chance.random() < 0.9 else name[:-1]
            words += [f"--{name}", chance.choice(VALUES)][: chance.choice((1, 2, 2, 2))]
        if chance.random() < 0.1:
            file = folder / "config.yaml"
            file.write_bytes(chance.choice((b"[" * 5000, b"a: &a [*a]", b"\xff\xfe", chance.randbytes(50))))
            words += ["--config", str(file)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                read_config(config, words)
        except UserError:
            return None
        except SystemExit as end:
            return None if end.code in (0, 2) else f"{config.__name__} {words}: exit code {end.code}"
        except BaseException as error:
            return f"{config.__name__} {words!s:.300}: {type(error).__name__}: {error}"
        return None


def config_of(words: Sequence[str]) -> type:
    """The dataclass that a command line fills: of a file with several commands the one with its name."""
    configs = list(typed(REPOSITORY / words[0]))
    return next(each for each in configs if len(configs) == 1 or words[1].replace("-", "") in each.__name__.lower())


def typed(file: Path) -> Iterator[type]:
    """The dataclasses of what can be typed behind a file: those that it imports where it is run."""
    for block in ast.parse(file.read_text()).body:
        if not isinstance(block, ast.If):
            continue
        for line in (each for each in block.body if isinstance(each, ast.ImportFrom)):
            module = import_module(line.module or "")
            yield from filter(is_dataclass, (getattr(module, name.name) for name in line.names))
