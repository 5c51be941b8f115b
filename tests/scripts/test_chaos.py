"""The campaign: it finds nothing here, and says so where there is something."""

from pathlib import Path

import pytest

from pretrain.command import Names, UserError
from scripts import chaos
from scripts.attacks.material import Material
from scripts.config import Chaos


@pytest.fixture
def no_material(monkeypatch):
    """For parts that need none."""
    monkeypatch.setattr(chaos, "make_material", Material)


class Falls:
    """Every third try fails, every fourth breaks."""

    def __init__(self, material: Material) -> None:
        self.tries = 0

    def attempt(self, random, folder: Path) -> str | None:
        self.tries += 1
        (folder / "left.txt").write_text(str(random.random()))
        if self.tries % 4 == 0:
            raise KeyError("broken")
        return "it fell" if self.tries % 3 == 0 else None


def test_made_up_command_lines_are_read_or_refused(no_material, tmp_path, capsys):
    assert chaos.main(Chaos(minutes=0.05, parts=Names("command-lines"), out=tmp_path / "out")) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "command-lines" in line)
    _, _, tries, failures, _ = (cell.strip() for cell in row.split("|"))
    assert int(tries) > 10 and failures == "0" and not (tmp_path / "out").exists()


def test_what_did_not_hold_is_kept_counted_and_the_same_again(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    kept = []
    for out in (tmp_path / "first", tmp_path / "second"):
        config = Chaos(minutes=0.005, parts=Names("falls"), out=out, record=tmp_path / "record.md")
        assert chaos.main(config) == 1
        kept.append((out / "falls-2" / "left.txt").read_text())
    assert "it fell" in (tmp_path / "first" / "falls-2" / "what.txt").read_text()
    assert "KeyError" in (tmp_path / "first" / "falls-3" / "what.txt").read_text()
    assert kept[0] == kept[1]
    assert "| falls |" in (tmp_path / "record.md").read_text()


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean kills"):
        chaos.main(Chaos(parts=Names("kill"), out=tmp_path))


@pytest.mark.slow
def test_a_campaign_of_all_parts_finds_nothing(tmp_path):
    assert chaos.main(Chaos(minutes=4, out=tmp_path / "out")) == 0
