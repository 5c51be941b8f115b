"""Real pairs as training material: held-out ones, missing masks, missing partners."""

from pair_folders import folder_of_pairs
from PIL import Image
from restorer_runs import COMMANDS, SMALL, refused

from pretrain.command import run_commands


def test_real_pairs_are_learned_from_and_evaluated_on(tmp_path, capsys):
    pairs, out = folder_of_pairs(tmp_path / "pairs"), tmp_path / "run"
    arguments = ["train", "--pairs", str(pairs), "--train", "bolt", "--input-size", "48", "--steps", "3"]
    arguments += ["--out", str(out), *SMALL]
    assert run_commands(COMMANDS, arguments) == 0
    for interpolate in ("--interpolate", "--no-interpolate"):
        evaluation = ["evaluate", "--model", str(out), "--pairs", str(pairs), "--test", "nut", interpolate]
        assert run_commands(COMMANDS, evaluation) == 0
        with Image.open(out / "test" / "images" / "nut" / "cut" / "000.png") as strip:
            assert strip.height == 22 + (40 if interpolate == "--interpolate" else 48)
    assert run_commands(COMMANDS, [*evaluation[:-1], "--input-size", "0"]) == 0
    folder_of_pairs(tmp_path / "bare", masks=False)
    line = refused(
        capsys, "train", "--pairs", str(tmp_path / "bare"), "--out", str(tmp_path / "r"), "--steps", "1", *SMALL
    )
    assert "has no masks" in line and "--beta 0" in line
    bare = ["train", "--pairs", str(tmp_path / "bare"), "--out", str(tmp_path / "b"), "--steps", "2", "--beta", "0"]
    assert run_commands(COMMANDS, [*bare, "--input-size", "48", *SMALL]) == 0
    assert "NaN" not in (tmp_path / "b" / "metrics.jsonl").read_text()
    evaluation = ["evaluate", "--model", str(out), "--pairs", str(tmp_path / "bare")]
    assert run_commands(COMMANDS, evaluation) == 0
    assert "n/a" in capsys.readouterr().out
    next((tmp_path / "bare").rglob("GT_clean_image/cut/000.png")).unlink()
    assert "lack their partner" in refused(capsys, *evaluation)
