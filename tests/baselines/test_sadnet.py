"""The command baselines/sadnet.py: it trains the published network, whose runs downstream/restore.py takes too."""

import shutil
from pathlib import Path

import pytest
from event_files import tracked
from restorer_runs import COMMANDS

from baselines.restoration.config import Evaluate, Train
from baselines.restoration.run import MODEL, training_summary
from baselines.sadnet import evaluate, train
from downstream.restoration.restorer import load_restorer
from pretrain.command import Names, run_commands


@pytest.fixture
def few(demo_folder, tmp_path) -> Path:
    """The demo data, with three test images of the bottle: the published network takes a second for each."""
    folder = tmp_path / "few"
    shutil.copytree(demo_folder, folder)
    for path in (folder / "bottle").rglob("*.png"):
        if path.parent.parent.name != "train" and path.stem.removesuffix("_mask") > "000":
            path.unlink()
    for defect in ("broken_large", "broken_small"):
        shutil.rmtree(folder / "bottle" / "test" / defect)
        shutil.rmtree(folder / "bottle" / "ground_truth" / defect)
    return folder


def test_sadnet_is_trained_evaluated_and_used(few, tmp_path, capsys):
    run, images = tmp_path / "run", few / "bottle" / "test" / "good"
    options = ["--train", "leather", "--steps", 1, "--input-size", 32, "--crop-px", 32, "--batch-size", 1]
    arguments = ["train", "--data", few, "--out", run, "--device", "cpu", *options,
                 "--track", "tensorboard"]  # fmt: skip
    assert run_commands({"train": (train, Train)}, list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    assert "SadNetRestorer: " in printed and "blur of sigma" in printed
    assert training_summary(run)["validation"]["degraded"].keys() == {"psnr", "masked_psnr"}
    assert tracked(run)["images"] == ["curves", "restored"] and "psnr" in tracked(run)["scalars"]
    restorer = load_restorer(run / MODEL)
    assert sum(weights.numel() for weights in restorer.network_.parameters()) == 4_234_723
    evaluate(Evaluate(model=run, data=few, test=Names("bottle"), shown=0))
    assert "SadNet" in capsys.readouterr().out
    assert run_commands(COMMANDS, ["restore", str(images), "--model", str(run), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 1
