"""Commands that write: all are attacked, and what they leave half, unsaid or damaged is found."""

import ast
import io
import json
import os
import random
import re
import runpy
import sys
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import REPOSITORY
from ended import Ended

from downstream.study.record import write_study
from heldout import COMMANDS
from pretrain.command import UserError
from scripts.attacks import damage, full_disk, odd_options, pairs, writers
from scripts.attacks.command_lines import CommandLines, config_of
from scripts.attacks.material import Material
from scripts.attacks.writers import NO_WRITERS, WRITERS, Writer


def test_command_lines_are_made_of_every_command():
    attack = CommandLines(Material(Path()))
    names = {config.__module__ for config in attack._configs}
    assert {"pretrain.config", "downstream.learning.config", "downstream.stations.config", "scripts.config"} < names
    assert {"Learn", "Promote", "AreaValidate", "Triage", "Push", "Pull", "Verify"} < {
        config.__name__ for config in attack._configs
    }


def test_every_command_that_writes_is_attacked_or_it_is_said_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "made", lambda material, name: material.folder / name)
    material, commands = Material(tmp_path), set()
    for module in COMMANDS.values():
        file = f"{module.replace('.', '/')}.py"
        several = [call for call in ast.walk(ast.parse((REPOSITORY / file).read_text()))
                   if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "start_commands"]  # fmt: skip
        commands |= {f"{file} {name}" for name in subcommands(file)} if several else {file}
    attacked = set()
    for writer in WRITERS.values():
        file, *options = map(str, writer.words(material, tmp_path / "out"))
        attacked.add(file if file in commands else f"{file} {options[0]}")
    assert attacked | {*NO_WRITERS} == commands and not attacked & {*NO_WRITERS}


def test_odd_options_are_those_of_the_command_and_write_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "made", lambda material, name: material.folder / name)
    configs = {
        name: config_of([*map(str, writer.words(Material(tmp_path), tmp_path / "out"))])
        for name, writer in WRITERS.items()
    }
    several = {name: configs[name].__name__ for name in ("run", "area validate", "roll-back", "restore study", "audit")}
    assert [*several.values()] == ["Run", "AreaValidate", "RollBack", "RestorationStudy", "Export"]
    typed = set()
    for config in configs.values():
        names = {f"--{field.name.replace('_', '-')}" for field in fields(config)}
        for seed in range(30):
            options = odd_options.odd_options(config, tmp_path, random.Random(seed))
            typed.update(options)
            assert {word.replace("--no-", "--") for word in options if word.startswith("--")} <= names
            places = [word for flag, word in pairwise(options) if flag in ("--out", "--data", "--json")]
            assert all(not word or "/" not in word or word.startswith(str(tmp_path)) for word in places)
    assert {"--out", "--seed", "--no-overwrite", "nan", str(tmp_path / "loop"), ""} < typed


@pytest.mark.parametrize(
    ("end", "left", "said"),
    [
        (Ended(0), None, None),
        (Ended(2, "error: --seed must be"), None, None),
        (Ended(2, "Killed"), None, "does not say what is wrong"),
        (Ended(70, "Traceback: KeyError"), None, "Traceback: KeyError"),
        (Ended(1), None, "exit code 1"),
        (Ended(0), ".model.host-1.part", "leaves ['.model.host-1.part']"),
    ],
)
def test_an_odd_option_that_ends_badly_is_found(end, left, said, tmp_path, monkeypatch):
    end.pid = os.getpid()
    monkeypatch.setattr(odd_options.resource, "prlimit", lambda *_: None)
    monkeypatch.setattr(odd_options, "WRITERS", {"fit": WRITERS["fit"]._replace(begins_with=None)})
    monkeypatch.setattr(odd_options, "Started", lambda *words: end)
    if left:
        (tmp_path / left).touch()
    found = odd_options.OddOptions(Material(tmp_path)).attempt(random.Random(0), tmp_path)
    assert found is None if said is None else said in found


def subcommands(file: str) -> list[str]:
    """As the command itself lists them."""
    said = io.StringIO()
    with redirect_stdout(said), pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr(sys, "argv", [file, "--help"])
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(REPOSITORY / file), run_name="__main__")
    return re.search("{(.*)}", said.getvalue())[1].split(",")


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (lambda folder, _: (folder / "file").read_bytes(), "it gives something else, and no word"),
        (lambda folder, _: json.loads((folder / "file").read_bytes()), "Error"),
        (lambda folder, _: b"the same", None),
    ],
)
def test_damage_that_goes_unnoticed_is_found(opened, said, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "file").write_text('{"threshold": 1.5}')
    monkeypatch.setattr(damage, "KINDS", {"fake": damage.Kind(lambda _: whole, opened)})
    found = damage.Damage(Material(tmp_path)).attempt(random.Random(0), tmp_path)
    assert found is None if said is None else said in found


def opened_if_whole(out: Path) -> None:
    if (out / "half").exists():
        raise ValueError("only half is there")


WRITER = Writer(lambda material, out: (out,), opened_if_whole)
WAITS, NO_SPACE = Ended(2, "error: another process writes"), Ended(2, "error: no space left; put that right")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((Ended(0), WAITS), None),
        ((Ended(0), Ended(0)), None),
        ((WAITS, WAITS), "both are refused"),
        ((Ended(0), Ended(2, "Killed")), "exit code 2: Killed"),
        ((Ended(0), Ended(70, "Traceback")), "exit code 70"),
    ],
)
def test_a_pair_that_ends_badly_is_found(ends, said, tmp_path, monkeypatch):
    coming = iter(ends)
    monkeypatch.setattr(pairs, "WRITERS", {"fake": WRITER})
    monkeypatch.setattr(pairs, "Started", lambda *words: next(coming))
    monkeypatch.setattr(pairs, "MOST_APART_S", 0)
    found = pairs.Pairs(Material(tmp_path)).attempt(random.Random(0), tmp_path)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("ends", "left", "said"),
    [
        ((NO_SPACE, Ended(0)), None, None),
        ((Ended(0), Ended(0)), None, None),
        ((Ended(2, "error: sorry"), Ended(0)), None, "does not say what is wrong"),
        ((Ended(70, "Traceback"), Ended(0)), None, "exit code 70"),
        ((NO_SPACE, Ended(0)), ".model.host-1.part", "leaves ['.model.host-1.part']"),
        ((NO_SPACE, NO_SPACE), None, "does not go on"),
        ((NO_SPACE, Ended(0)), "half", "leaves half a result: ValueError: only half is there"),
        ((Ended(0), Ended(0)), "half", "only half is there"),
    ],
)
def test_what_a_full_disk_leaves_is_found(ends, left, said, tmp_path, monkeypatch):
    coming = iter((Ended(0), *ends))  # the first is undisturbed

    def end(out: Path) -> Ended:
        out.mkdir(exist_ok=True)
        if left and out.parent.name == "disk":
            (out / left).touch()
        return next(coming)

    monkeypatch.setattr(full_disk, "WRITERS", {"fake": WRITER})
    monkeypatch.setattr(full_disk, "command", end)
    monkeypatch.setattr(full_disk, "may_mount", lambda _: True)
    monkeypatch.setattr(full_disk, "small_disk", lambda folder, _: folder.mkdir() or nullcontext(folder))
    monkeypatch.setattr(full_disk, "fill_but", lambda disk, _: (disk / "filler").touch() or disk / "filler")
    attack = full_disk.FullDisk(Material(tmp_path))
    try:
        found = attack.attempt(random.Random(0), tmp_path)
    except ValueError as error:
        found = str(error)
    assert found is None if said is None else said in found


def test_a_study_that_goes_on_is_nothing_half_and_a_report_without_an_end_is(tmp_path):
    study = WRITERS["evaluate"]
    assert full_disk.half_left(study, tmp_path) is None  # there is none
    write_study(tmp_path, {"cells": ["cells/nut/none.safetensors"]})
    assert full_disk.half_left(study, tmp_path) is None
    with pytest.raises(UserError, match="1 cells are missing"):  # which a command that ended has not
        study.opened(tmp_path)
    write_study(tmp_path, {"cells": []})
    (tmp_path / "report.html").write_text("<html>")
    assert "has no end" in full_disk.half_left(study, tmp_path)
    assert full_disk.half_left(WRITERS["restore study"], tmp_path) is None  # the same of restorers
