"""The campaign: it finds nothing here, and says so where there is something."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random

import pytest

from pretrain.command import Names, UserError, read_config
from scripts import chaos
from scripts.attacks import (
    damage,
    full_disk,
    hostile_images,
    http_abuse,
    kills,
    line_kills,
    odd_options,
    pairs,
    ray_kills,
    soak,
)
from scripts.attacks.attack import Attack
from scripts.attacks.material import Material, copied_models
from scripts.attacks.serving import served
from scripts.attacks.writers import WRITERS
from scripts.config import Chaos


@pytest.fixture
def no_material(monkeypatch):
    """For parts that need none."""
    monkeypatch.setattr(chaos, "make_material", Material)


class Falls(Attack):
    """Every third try fails, every fourth breaks, every fifth asks to end the process, as argparse does."""

    unit = "a step"

    def __init__(self, material: Material) -> None:
        self.tries = 0

    def attempt(self, random, folder: Path) -> str | None:
        self.tries += 1
        (folder / "left.txt").write_text(str(random.random()))
        if self.tries % 4 == 0:
            raise KeyError("broken")
        if self.tries % 5 == 0:
            raise SystemExit(2)
        return "it fell" if self.tries % 3 == 0 else None


def test_made_up_command_lines_are_read_or_refused(no_material, tmp_path, capsys):
    config = Chaos(minutes=10, tries=30, parts=Names("command-lines"), out=tmp_path / "out")
    assert chaos.main(config) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "command-lines" in line)
    _, _, tries, _, failures, _ = (cell.strip() for cell in row.split("|"))
    assert tries == "30" and failures == "0" and not (tmp_path / "out").exists()


def test_what_did_not_hold_is_kept_counted_and_the_same_again(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    kept = []
    for out in (tmp_path / "first", tmp_path / "second"):
        config = Chaos(minutes=0.005, parts=Names("falls"), out=out, record=tmp_path / "record.md")
        assert chaos.main(config) == 1
        kept.append((out / "falls-2" / "left.txt").read_text())
    assert "it fell" in (tmp_path / "first" / "falls-2" / "what.txt").read_text()
    assert "KeyError" in (tmp_path / "first" / "falls-3" / "what.txt").read_text()
    assert "SystemExit" in (tmp_path / "first" / "falls-4" / "what.txt").read_text()
    assert kept[0] == kept[1]
    (out / "mine.txt").write_text("not of a campaign")
    assert chaos.main(Chaos(minutes=0.001, parts=Names("command-lines"), tries=1, out=out)) == 0
    assert [left.name for left in out.iterdir()] == ["mine.txt"]
    assert "| falls |" in (tmp_path / "record.md").read_text()


def test_a_damaged_file_that_ends_its_command_is_refused(tmp_path, monkeypatch):
    """As argparse does with a file of --config: a campaign ended there without a word."""
    monkeypatch.setattr(damage, "KINDS", {"drawn": damage.KINDS["drawn"]})
    attack = damage.Damage(Material(tmp_path))
    for number in range(20):
        (folder := tmp_path / str(number)).mkdir()
        assert attack.attempt(Random(number), folder) is None


def test_parts_are_tried_as_often_as_is_typed_and_what_is_not_run_is_named(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chaos, "PARTS", {name: Falls for name in ("first", "second", "postgres", "soak")})
    monkeypatch.setattr(Falls, "attempt", lambda self, chance, folder: None)
    monkeypatch.setattr(chaos, "program", lambda _: None)
    config = read_config(Chaos, ["--tries", "first=3,second=2", "--minutes", "0.0001", "--out", str(tmp_path / "out")])
    assert chaos.main(config) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert rows == [["first", "3", "a step", "0"], ["second", "2", "a step", "0"],
                    ["postgres", "not run", "PostgreSQL is not installed", ""],
                    ["soak", "not run", "it takes 240 minutes or more", ""]]  # fmt: skip
    assert read_config(Chaos, ["--tries", "7"]).tries == 7
    for typed, said in (("frist=3", "did you mean first"), ("first", "no number"), ("first=0", "no number")):
        with pytest.raises(UserError, match=said):
            chaos.main(Chaos(tries=Names(typed), out=tmp_path))


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean kills"):
        chaos.main(Chaos(parts=Names("kill"), out=tmp_path))


@pytest.fixture
def one_service(material, monkeypatch) -> Iterator[None]:
    """For the parts that do not end it, since each takes seconds to start."""
    models = copied_models(material, material.folder / "models")
    with served(models, material.folder / "soaked", "--max-image-mb", 4) as serving:
        monkeypatch.setattr(soak, "copied_models", lambda material, folder: folder)
        for module in (http_abuse, soak):
            monkeypatch.setattr(module, "served", lambda *_: nullcontext(serving))
        yield


SERVICES = ("http", "service-kills", "line-kills", "line-http", "postgres", "ray", "soak")


@pytest.mark.parametrize("with_services", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_short_campaign_touches_every_part_and_finds_nothing(
    with_services, material, tmp_path, capsys, monkeypatch, request
):
    """With what is made in a moment: other commands and files take seconds each."""
    monkeypatch.setattr(damage, "KINDS", {name: damage.KINDS[name] for name in ("model", "vectors", "index", "run")})
    monkeypatch.setattr(hostile_images, "COMMANDS", (hostile_images.surveying,))
    monkeypatch.setattr(line_kills, "KILLS", 1)
    monkeypatch.setattr(ray_kills, "KILLS", 1)
    monkeypatch.setattr("scripts.attacks.material.IMPORTED", ["downstream.line", "pretrain.survey"])
    for module in (kills, full_disk, pairs, odd_options):
        monkeypatch.setattr(module, "WRITERS", {"survey": WRITERS["survey"]})
    not_run = chaos.parts_without(chaos.SOAK_FROM_MINUTES)
    parts = [name for name in chaos.PARTS if name not in not_run and with_services == (name in SERVICES)]
    if with_services:
        request.getfixturevalue("one_service")
    assert chaos.main(Chaos(minutes=10, tries=1, parts=Names(parts), out=tmp_path / "out")) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in (row[1], row[2], row[4])] for row in rows[2:]] == [
        [name, "1", "0"] for name in parts
    ]


def test_a_campaign_that_is_stopped_tells_what_it_did(no_material, tmp_path, monkeypatch, capsys):
    class IsStopped(Falls):
        def attempt(self, random, folder: Path) -> str | None:
            if self.number == 2:
                raise KeyboardInterrupt
            return None

    monkeypatch.setattr(chaos, "PARTS", {"first": IsStopped, "second": Falls})
    parts = Names("first,second")
    assert chaos.main(Chaos(minutes=10, parts=parts, out=tmp_path, record=tmp_path / "record.md")) == 0
    record = (tmp_path / "record.md").read_text()
    assert "| first | 2 | a step | 0 |\n| second | 0 | a step | 0 |" in record and "Stopped by hand" in record


def test_one_try_is_done_again_by_its_name(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    seen = []
    monkeypatch.setattr(Falls, "attempt", lambda self, chance, folder: seen.append((self.number, chance.random())))
    chaos.main(Chaos(minutes=10, tries=4, seed=3, parts=Names("falls"), out=tmp_path))
    chaos.main(Chaos(seed=3, only=Names("falls-2"), out=tmp_path))
    assert [number for number, _ in seen] == [0, 1, 2, 3, 2] and seen[-1] == seen[2]
    for typed in ("falls", "falls-all", "2"):
        with pytest.raises(UserError, match="is no try"):
            chaos.main(Chaos(only=Names(typed), out=tmp_path))


def test_a_failure_says_how_to_do_it_again_and_that_removes_no_other(no_material, tmp_path, monkeypatch):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    monkeypatch.setattr(Falls, "conclude", lambda self, folder: "it grew")
    tries = Names("falls=4,command-lines=1")
    chaos.main(Chaos(minutes=10, tries=tries, seed=3, parts=Names("falls,command-lines"), out=tmp_path))
    said = {path.parent.name: path.read_text().splitlines()[0] for path in tmp_path.glob("*/what.txt")}
    assert said == {f"falls-{which}": f"python scripts/chaos.py --seed 3 {options}" for which, options in (
        (2, "--only falls-2"), (3, "--only falls-3"),
        ("all", "--parts falls --minutes 5 --tries falls=4"))}  # fmt: skip
    chaos.main(Chaos(seed=3, only=Names("falls-2"), out=tmp_path))  # which holds, as the first of its part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["falls-3", "falls-all"]


def test_a_model_of_the_users_is_attacked_in_a_copy(padim_folder, material, tmp_path, monkeypatch):
    given = Path(shutil.copytree(padim_folder, tmp_path / "bolt"))
    (given / "note.txt").write_text("of the user")
    monkeypatch.setattr(damage, "KINDS", {"model": damage.KINDS["model"]})
    damaged, attacked = damage.damaged, []

    def seen(file: Path, *of) -> str:
        attacked.extend(file.parent.iterdir())
        return damaged(file, *of)

    monkeypatch.setattr(damage, "damaged", seen)
    assert chaos.main(Chaos(minutes=10, tries=2, parts=Names("damage"), model=given, out=tmp_path / "out")) == 0
    assert "note.txt" in {path.name for path in attacked} and not [path for path in attacked if given in path.parents]
    with pytest.raises(UserError, match="is no folder"):
        chaos.main(Chaos(model=given / "inspector.json", out=tmp_path / "out"))


@pytest.mark.slow
def test_a_campaign_of_all_parts_finds_nothing(tmp_path):
    assert chaos.main(Chaos(minutes=4, out=tmp_path / "out")) == 0
