"""A restorer's run folder: what a training leaves, what is refused before it begins, and older formats."""

import json

import pytest
from event_files import tracked
from restorer_runs import TINY, refused

from baselines.restoration.run import FORMAT, training_summary
from pretrain.command import UserError


def test_a_run_leaves_model_curves_and_what_it_learned_from(restorer_run, capsys):
    names = {path.name for path in restorer_run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "curves.png", "training.json", "model", "finished"} <= names
    assert "checkpoint.safetensors" not in names
    assert tracked(restorer_run)["images"] == ["curves", "restored"] and "loss" in tracked(restorer_run)["scalars"]
    metadata = json.loads((restorer_run / "training.json").read_text())
    assert (
        metadata["categories"] == ["hazelnut", "leather"]
        and metadata["steps"] == 4
        and "blur of sigma" in metadata["degradation"]
    )
    lines = [json.loads(line) for line in (restorer_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4)) and "masked_psnr" in lines[-1]


def test_user_errors_of_training_leave_nothing_behind(demo_folder, restorer_run, tmp_path, capsys):
    def told(*more: str) -> str:
        return refused(capsys, "train", "--data", str(demo_folder), "--out", str(tmp_path / "r"), *TINY, *more)

    assert "did you mean medium" in told("--severity", "mediun")
    assert "choose crop_px" in told("--crop-px", "64")
    assert "alpha 0" in told("--alpha", "0")
    assert "not all 0" in told("--loss-weights", "[0,0,0]")
    assert "--minutes must be above 0" in told("--minutes", "-1")
    assert "half cosines" in told("--half-cosines", "2")
    assert "did you mean hazelnut?" in told("--train", "hazelnot")
    assert not (tmp_path / "r").exists()
    line = refused(capsys, "train", "--data", str(demo_folder), "--out", str(restorer_run), *TINY, "--steps", "5")
    assert "steps was 4 and is 5" in line
    assert "no finished training" in refused(capsys, "evaluate", "--model", str(tmp_path))
    assert "MB are too few" in refused(capsys, "restore", "x.png", "--model", str(restorer_run), "--memory-mb", "1")


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(demo_folder, tmp_path, capsys):
    arguments = ("--steps", "30", "--learning-rate", "1e30", "--warmup", "0", "--out", str(tmp_path / "r"))
    assert "not a number any more" in refused(capsys, "train", "--data", str(demo_folder), *TINY, *arguments)


def test_a_run_of_another_format_is_refused(restorer_run, tmp_path):
    summary = json.loads((restorer_run / "training.json").read_text())
    assert training_summary(restorer_run)["severity"] == "medium" and summary.pop("format") == FORMAT
    (tmp_path / "training.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="has format 1, and this heldout reads format 2: train the model anew"):
        training_summary(tmp_path)
