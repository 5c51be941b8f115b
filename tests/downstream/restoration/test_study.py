"""The study of restorers on held-out categories: who sees what, kept cells, the table."""

import json

import pytest

from downstream import restore
from downstream.restoration.study import ROWS
from downstream.restoration.table import markdown_lines, restoration_table
from pretrain.command import Names, UserError, run_commands

COMMANDS = {"study": (restore.study, restore.Study)}
TINY = ("--steps", "2", "--input-size", "48", "--crop-px", "32", "--device", "cpu", "--seeds", "0")


@pytest.fixture(scope="module")
def out(demo_folder, encoder_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "restoration_study"
    arguments = ["study", "--data", str(demo_folder), "--train", "hazelnut,leather", "--test", "bottle", *TINY]
    arguments += ["--encoder", str(encoder_file), "--rows", "simclr,random", "--out", str(out)]
    assert run_commands(COMMANDS, [*arguments, "--record", str(out.parent / "R.md")]) == 0
    return out


def test_every_row_has_its_figures_beside_the_degraded_input(out):
    table = (out.parent / "R.md").read_text()
    assert table.startswith("\n## Restoration\n") and "blur of sigma" in table and "Tested on bottle" in table
    for row in ("degraded input", "simclr", "random"):
        assert f"| {row} | " in table
    cells = {row: json.loads((out / f"{row}-seed-0" / "judged.json").read_text()) for row in ("simclr", "random")}
    degraded = [cell["by"]["degraded input"] for cell in cells.values()]
    assert degraded[0] == degraded[1] and degraded[0]["masked_psnr"]["count"] == 12
    for cell in cells.values():
        assert set(cell["found"]) == {"clean", "degraded input", "restored"}
        assert all(0 <= value <= 1 for value in cell["found"].values()) and cell["steps"] == 2


def test_finished_cells_are_kept(demo_folder, encoder_file, out, capsys):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("judged.json")}
    again = ["study", "--data", str(demo_folder), "--train", "hazelnut,leather", "--test", "bottle", *TINY]
    again += ["--encoder", str(encoder_file), "--rows", "simclr", "--out", str(out)]
    assert run_commands(COMMANDS, again) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("judged.json")} == before
    assert "| simclr | " in capsys.readouterr().out
    assert run_commands(COMMANDS, [*again, "--level", "harsh"]) == 2
    assert "with other options" in capsys.readouterr().err


def test_what_must_not_be_compared_is_refused(demo_folder, encoder_file, tmp_path, capsys):
    def refused(*more: str) -> str:
        arguments = ["study", "--data", str(demo_folder), "--out", str(tmp_path), *TINY, *more]
        assert run_commands(COMMANDS, arguments) == 2
        return capsys.readouterr().err

    given = ("--encoder", str(encoder_file))
    assert "in --train and in --test" in refused("--train", "bottle", "--test", "bottle", *given)
    assert "saw" in refused("--train", "bottle", "--test", "leather", *given)
    assert "no row named" in refused("--train", "leather", "--test", "bottle", *given, "--rows", "simclrr")
    line = refused("--train", "leather", "--test", "bottle", "--encoder", "none", "--rows", "simclr")
    assert "no encoder for the row simclr" in line
    assert "--seeds" in refused("--train", "leather", "--test", "bottle", *given, "--seeds", "a")


def test_ablations_have_rows():
    assert {"sadnet", "sadnet-published", "simclr-no-mask", "random", "imagenet-frozen"} <= set(ROWS)


def test_figures_are_means_and_deviations_over_seeds(tmp_path):
    for seed, value in enumerate((30.0, 32.0)):
        figures = dict.fromkeys(("psnr", "ssim", "masked_psnr", "masked_ssim", "inflated_psnr"), {"value": value})
        cell = {"by": {"degraded input": figures, "restored": figures}, "steps": 5, "minutes": 1.0}
        cell |= {"found": dict.fromkeys(("clean", "degraded input", "restored"), 0.5), "seconds_per_megapixel": 1.0}
        (tmp_path / f"sadnet-seed-{seed}").mkdir()
        (tmp_path / f"sadnet-seed-{seed}" / "judged.json").write_text(json.dumps(cell))
    config = restore.Study(data=tmp_path, train=Names("nut"), test=Names("bolt"), out=tmp_path)
    (line,) = [
        line for line in markdown_lines(restoration_table(config, ["sadnet"], [0, 1])) if line.startswith("| sadnet")
    ]
    assert line.startswith("| sadnet | 31.00 ± 1.41 | 31.000 ± 1.414 | 31.00 ± 1.41 |")


def test_a_study_without_its_categories_is_a_sentence(demo_folder):
    with pytest.raises(UserError):
        restore.study(restore.Study(data=demo_folder, train=Names("leather"), test=Names("nothing")))
