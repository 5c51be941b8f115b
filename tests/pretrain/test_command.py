"""Flags, YAML and user errors."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import REPOSITORY

from pretrain.command import Names, UserError, nearest, read_config, run_command, run_commands, start, start_commands

# All but doctor.py, which has no options and does without what reads them: that may be what is missing.
RUNNABLES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("pretrain", "embeddings", "baselines", "downstream", "scripts")
    for path in (REPOSITORY / folder).glob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text() and path.stem != "doctor"
)

# A fork for each call, which is to a command as a process of its own, but that jsonargparse is imported already.
EXPLAIN = """
import io, json, os, re, runpy, sys, traceback
import docstring_parser, jsonargparse, typeshed_client, yaml

def explained(script, *words):
    read, write = os.pipe()
    if not os.fork():
        sys.argv, sys.path[0], code = [script, *words, "--help"], os.path.dirname(script), 0
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = traceback.format_exc()
        with os.fdopen(write, "w") as pipe:
            json.dump([code, sys.stdout.getvalue(), sys.stderr.getvalue(), [*sys.modules]], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.load(pipe)
    os.wait()
    return answer

answers = {}
for script in SCRIPTS:
    answers[script] = {"": explained(script)}
    several = re.search(r"\\{([\\w,-]+)\\} \\[options\\]", answers[script][""][1])
    for command in several[1].split(",") if several else ():
        answers[script][command] = explained(script, command)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def explained(tmp_path_factory) -> dict[str, dict[str, tuple[int | str, str, str, list[str]]]]:
    """By runnable and by its command, "" without one: exit code, output, errors and imported modules of --help, in some
    folder."""
    scripts = [str(REPOSITORY / runnable) for runnable in RUNNABLES]
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN.replace("SCRIPTS", repr(scripts))], cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(RUNNABLES, json.loads(done.stdout).values(), strict=True))


@dataclass(frozen=True)
class Config:
    """Do a thing.

    Attributes:
        count: How many.
        data: Where from.
        hold_out: Which not.
        rate: How fast.
        mode: Which way.
        strict: Stop early.
        most: At most.
        only: Only these.
    """

    count: int
    data: Path | None = None
    hold_out: Names = Names("bottle,pill")
    rate: float = 1e-4
    mode: Literal["slow", "fast"] = "slow"
    strict: bool = False
    most: int | None = None
    only: Names | None = None


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        read_config(Config, arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_defaults_then_yaml_then_flags(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("count: 3\nrate: 1e-3\nhold_out: [wood, tile]\nstrict: true\n")
    assert read_config(Config, ["--count", "1"]) == Config(1)
    assert read_config(Config, ["--config", str(file)]) == Config(3, None, Names("wood,tile"), 1e-3, "slow", True)
    changed = read_config(Config, ["--config", str(file), "--no-strict", "--rate", "2", "--hold-out", "a, b"])
    assert changed == Config(3, None, Names("a,b"), 2.0, "slow", False)


def test_names_stay_names_where_they_are_optional():
    assert isinstance(read_config(Config, ["--count", "1", "--only", "b,a"]).only, Names)
    assert read_config(Config, ["--count", "1"]).only is None


def test_printed_config_is_read_again(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        read_config(Config, ["--count", "7", "--hold-out", "wood,tile", "--data", "x", "--print_config"])
    assert stop.value.code == 0
    file = tmp_path / "config.yaml"
    file.write_text(capsys.readouterr().out)
    assert read_config(Config, ["--config", str(file)]) == Config(7, Path("x"), Names("wood,tile"))


def test_mistyped_flag_and_key_name_the_nearest(tmp_path, capsys):
    assert "--strickt; did you mean --strict?" in refusal(capsys, "--count", "1", "--strickt")
    assert "--hold_out; did you mean --hold-out?" in refusal(capsys, "--count", "1", "--hold_out", "x")
    file = tmp_path / "config.yaml"
    file.write_text("count: 3\nhold_outs: x\n")
    assert "hold_outs; did you mean hold_out?" in refusal(capsys, "--config", str(file))


@pytest.mark.parametrize("word", ["null", "~", "#data", "1", "[a]"])
def test_a_typed_path_is_that_path_whatever_yaml_makes_of_it(word, tmp_path):
    assert read_config(Config, ["--count", "1", "--data", word]).data == Path(word)
    file = tmp_path / "config.yaml"
    file.write_text("count: 1\ndata: null\nonly: null\n")
    assert read_config(Config, ["--config", str(file)]) == Config(1)
    assert read_config(Config, ["--config", str(file), "--only", word]).only is not None


def test_an_empty_path_is_refused(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("count: 1\ndata: ''\n")
    for words in (["--count", "1", "--data", ""], ["--config", str(file)]):
        assert refusal(capsys, *words) == "error: --data: an empty name is no file and no folder."


def test_a_word_without_a_flag_is_answered(capsys):
    assert "there is no option folder" in refusal(capsys, "--count", "1", "folder")


def test_wrong_values_are_named_in_one_sentence(capsys):
    assert refusal(capsys, "--count", "many") == "error: --count must be a whole number, not 'many'."
    assert refusal(capsys, "--count", "1", "--mode", "up") == "error: --mode must be one of slow, fast, not 'up'."
    assert refusal(capsys, "--count", "1", "--most", "x") == "error: --most must be a whole number, not 'x'."
    assert refusal(capsys, "--count", "1", "--most", "") == "error: --most must be a whole number, not ''."
    assert refusal(capsys) == "error: --count must be given."
    for typed, read in ((".nan", "nan"), ("1e400", "inf"), ("-.inf", "-inf")):  # as YAML has them
        line = refusal(capsys, "--count", "1", f"--rate={typed}")
        assert line == f"error: --rate must be of finite numbers, not {read}."
    with pytest.raises(SystemExit):
        read_config(Wider, ["--count", "1", "--sizes", "[1, .inf]"])
    assert "--sizes must be of finite numbers" in capsys.readouterr().err
    assert "--config" in (line := refusal(capsys, "--config", "/nowhere.yaml")) and "/nowhere.yaml" in line


@dataclass(frozen=True)
class Wider(Config):
    """Do another thing.

    Attributes:
        sizes: How large.
    """

    sizes: tuple[float, float] = (1.0, 2.0)
    rate: float = 5.0


def test_what_builds_on_another_command_describes_only_what_it_adds(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("count: 3\nsizes: [3, 4]\n")
    assert read_config(Wider, ["--config", str(file)]) == Wider(3, sizes=(3.0, 4.0))
    assert read_config(Wider, ["--count", "1", "--sizes", "[0.5,1]"]).sizes == (0.5, 1.0)
    with pytest.raises(SystemExit):
        read_config(Wider, ["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "Do another thing." in words and "How large. (type" in words and "How many. (" in words
    assert "default: 5.0" in words
    with pytest.raises(SystemExit):
        read_config(Wider, ["--count", "1", "--sizes", "1,2"])
    assert capsys.readouterr().err == "error: --sizes must be a list of 2, such as [1,1], not '1,2'.\n"


def test_run_command_turns_user_errors_into_a_sentence_and_exit_code_2(capsys):
    def main(config: Config) -> None:
        raise UserError("no such folder; try another.")

    assert run_command(main, Config, ["--count", "1"]) == 2
    assert capsys.readouterr().err == "error: no such folder; try another.\n"
    assert run_command(lambda config: None, Config, ["--count", "1"]) == 0
    assert run_command(lambda config: config.count, Config, ["--count", "5"]) == 5


def test_the_first_word_chooses_among_commands(capsys):
    commands = {"count": (lambda config: config.count, Config), "fail": (lambda config: 1, Config)}
    assert run_commands(commands, ["count", "--count", "5"]) == 5
    assert run_commands(commands, ["fail", "--count", "5"]) == 1
    assert run_commands(commands, ["--help"]) == run_commands(commands, []) == 0
    words = capsys.readouterr().out
    assert "{count,fail}" in words and "explains itself" in words
    assert run_commands(commands, ["cuont"]) == 2
    assert "did you mean count?" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["/site", "/checkout"])
def test_what_is_installed_does_not_come_before_the_standard_library(first, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    monkeypatch.setattr(sys, "path", [first, *sys.path, "/site"])
    for begin in (lambda: start("pretrain.x:main", Config), lambda: start_commands({"a": ("pretrain.x:main", Config)})):
        with pytest.raises(SystemExit):
            begin()
    assert (sys.path[0] == first) == (first == "/checkout")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 2, "the memory does not suffice"),
        (partial(torch.empty, 2**60), 2, "the memory does not suffice"),
        (lambda: Path("loop").resolve().stat(), 2, "name another path"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), 2, "for 2.50 GiB more; ask"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            2,
            "the GPU's memory",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), 70, "a fault of heldout"),
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left on device"), 2, "put that right"),
        (KeyError("fault"), 70, "a fault of heldout"),
    ],
)
def test_exit_code_1_is_left_to_what_a_command_says_of_itself(error, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")

    def main(config: Config) -> None:
        if callable(error):
            error()
        raise error

    assert run_command(main, Config, ["--count", "1"]) == code
    assert words in capsys.readouterr().err


def test_interrupt_is_exit_code_130():
    def main(config: Config) -> None:
        raise KeyboardInterrupt

    assert run_command(main, Config, ["--count", "1"]) == 130


def test_names_keep_their_order_and_drop_repeats():
    assert Names(" b, a,b,,") == ("b", "a")
    assert str(Names(["b", "a"])) == f"{Names('b,a')}" == "b,a"
    assert Names("") == ()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: &a [*a]", b"[" * 5000, b"count: {", b"- 1"])
def test_a_file_of_options_that_is_none_is_a_sentence(content, tmp_path, capsys):
    (tmp_path / "options.yaml").write_bytes(content)
    assert refusal(capsys, "--count", "1", "--config", str(tmp_path / "options.yaml"))


def test_no_pipe_is_waited_for_and_no_aliases_are_followed(tmp_path, capsys):
    """Ten levels of nine aliases are some gigabytes once somebody looks at them."""
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(capsys, "--count", "1", f"--config={tmp_path / 'pipe'}")
    levels = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))]
    (tmp_path / "options.yaml").write_text("\n".join(levels))
    assert "aliases" in refusal(capsys, "--count", "1", "--config", str(tmp_path / "options.yaml"))
    (tmp_path / "options.yaml").write_text("count: &few 3")
    for word in (str(tmp_path / "options.yaml"), "{count: 3}"):
        assert read_config(Config, ["--config", word]).count == 3


def test_nearest_names_one_or_all():
    assert nearest("botle", ["bottle", "pill"]) == "did you mean bottle?"
    assert nearest("xyz", ["pill", "bottle"]) == "choose from bottle, pill."


def test_there_are_runnables():
    assert {"pretrain/demo.py", "pretrain/survey.py", "scripts/fetch.py"} <= set(RUNNABLES)


@pytest.mark.parametrize("runnable", RUNNABLES)
def test_every_command_runs_from_any_folder_and_explains_every_option(runnable, explained):
    """Whether or not heldout is installed: a runnable puts its own repository first on the path."""
    assert all((code, errors) == (0, "") for code, _, errors, _ in explained[runnable].values()), explained[runnable]
    commands = [*filter(None, explained[runnable])] or [""]
    for command in commands:
        assert "type: " in " ".join(explained[runnable][command][1].split())
    # What is imported only when it is called is there: `start("package.module:function", ...)`.
    imported = re.findall(r'"([\w.]+):(\w+|\{name\})"', (REPOSITORY / runnable).read_text())
    assert imported
    for module, function in imported:
        for name in commands if function == "{name}" else [function]:
            assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("runnable", RUNNABLES)
def test_help_loads_nothing_heavy(runnable, explained):
    """Time is too noisy to assert; what costs it is not."""
    loaded = set(explained[runnable][""][3])
    assert "pretrain.command" in loaded
    assert not loaded & {"torch", "torchvision", "lightly", "kornia", "sklearn", "faiss", "scipy", "lightning_fabric"}
    if runnable in ("pretrain/survey.py", "pretrain/demo.py", "pretrain/simclr.py"):
        assert not loaded & {"numpy", "PIL", "kornia_rs"}


def test_workers_do_not_import_the_file_that_was_typed(tmp_path):
    (tmp_path / "options.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Options:\n    'Run.'\n"
    )
    (tmp_path / "tool.py").write_text(f"""
if __name__ == "__main__":
    import sys

    sys.path.append({str(REPOSITORY)!r})
    from options import Options

    from pretrain.command import start

    start("tool:main", Options)

print("imported as", __name__, flush=True)


def main(config):
    from pretrain.workers import worker_pool

    with worker_pool(1) as pool:
        print(pool.submit(int, "7").result(), flush=True)
""")
    for command in ([tmp_path / "tool.py"], ["-m", "tool"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout.split("\n") == ["imported as tool", "7", ""], done.stderr


@dataclass(frozen=True)
class Positional:
    """Take what stands without a flag.

    Attributes:
        queries: Some files.
        k: How many.
    """

    queries: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    k: int = 5


def test_what_stands_without_a_flag(capsys):
    assert read_config(Positional, []) == Positional()
    assert read_config(Positional, ["a.png", "b c.png", "--k", "3"]) == Positional((Path("a.png"), Path("b c.png")), 3)
    assert read_config(Positional, ["--k", "3", "a.png"]) == Positional((Path("a.png"),), 3)
    with pytest.raises(SystemExit):
        read_config(Positional, ["a.png", "--kk", "3"])
    assert "there is no option --kk" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        read_config(Positional, ["--queries=a.png"])
    assert "no option --queries: what follows it is typed without one." in capsys.readouterr().err
