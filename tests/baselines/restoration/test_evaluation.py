"""Evaluation of a restorer: its figures by hand, its table and files, and what must not be evaluated on."""

import csv
import json

import numpy as np
import pytest
import torch
from pair_folders import smooth
from PIL import Image
from restorer_runs import COMMANDS, TINY, refused

from baselines.contract.method import Pair
from baselines.contract.metrics import psnr
from baselines.restoration.evaluation import DEGRADED, evaluate_pairs, mean_figures, restored_figures
from baselines.restoration.pairs import NamedPair
from pretrain.command import UserError, run_commands
from pretrain.encoder import Encoder
from pretrain.weights import Origin


def test_evaluate_tables_the_degraded_input_beside_what_was_restored(demo_folder, restorer_run, tmp_path, capsys):
    out = tmp_path / "test"
    arguments = ["evaluate", "--model", str(restorer_run), "--data", str(demo_folder), "--test", "bottle"]
    arguments += ["--out", str(out)]
    assert run_commands(COMMANDS, arguments + ["--shown", "2"]) == 0
    printed = capsys.readouterr().out
    assert "degraded input" in printed and "blur of sigma" in printed and "inflated" in printed
    result = json.loads((out / "results.json").read_text())
    row = result["categories"]["bottle"]["degraded input"]
    assert row["psnr"]["count"] == 18 and row["masked_psnr"]["count"] == 12
    assert row["inflated_psnr"]["value"] > row["masked_psnr"]["value"] + 5
    with open(out / "categories.csv") as file:
        assert [line["restored_by"] for line in csv.DictReader(file)] == ["degraded input", "Encoder"]
    with open(out / "images.csv") as file:
        assert len(list(csv.DictReader(file))) == 36
    drawn = sorted(path.relative_to(out / "images").as_posix() for path in (out / "images").rglob("*.png"))
    assert drawn == ["bottle/test/broken_large/000.png", "bottle/test/broken_large/001.png"]
    with Image.open(out / "images" / drawn[0]) as strip:
        assert strip.width > 5 * 48
    assert (out / "images.png").exists()


def test_what_was_trained_on_is_not_evaluated_unless_said_aloud(demo_folder, restorer_run, tmp_path, capsys):
    arguments = ("evaluate", "--model", str(restorer_run), "--data", str(demo_folder), "--out", str(tmp_path))
    assert "leather was trained on" in refused(capsys, *arguments, "--test", "leather,bottle")
    assert run_commands(COMMANDS, [*arguments, "--shown", "0"]) == 0  # those that are left: bottle
    assert "tested on bottle (" in capsys.readouterr().out
    assert run_commands(COMMANDS, [*arguments, "--test", "leather", "--allow-seen", "--shown", "0"]) == 0
    assert "SEEN IN" in capsys.readouterr().out


def test_inflated_is_in_mask_and_the_masks_share():
    image, mask = smooth(1, 40, 50)[0], torch.zeros(40, 50, dtype=torch.bool)
    mask[10:20, 10:30] = True
    noisy = (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    figures = restored_figures(noisy, image, mask)
    assert figures.inflated_psnr == pytest.approx(figures.masked_psnr + 10 * np.log10(2000 / 200), abs=1e-6)
    assert figures.inflated_ssim > figures.masked_ssim
    assert restored_figures(noisy, image, None).masked_psnr is None
    with pytest.raises(UserError, match="8x40 is smaller than SSIM's window"):
        restored_figures(noisy[..., :8], image[..., :8], None)
    with pytest.raises(UserError, match="NaN"):
        restored_figures(noisy * torch.nan, image, None)


def test_a_perfect_image_is_counted_and_kept_out_of_mean_figures():
    image = smooth(1, 40, 50)[0]
    noisy = (image + 0.1).clamp(0, 1)
    pairs = [NamedPair(name, "bolt", Pair(degraded, image, None)) for name, degraded in (("a", image), ("b", noisy))]
    evaluated = [one for one, _ in evaluate_pairs(pairs, lambda images: images, "nothing")]
    assert mean_figures(evaluated)["nothing"] == mean_figures(evaluated)[DEGRADED]
    mean = mean_figures(evaluated)["nothing"]["psnr"]
    assert mean.perfect == 1 and mean.count == 2
    assert mean.value == pytest.approx(psnr(noisy[None], image[None]).item())
    assert mean_figures(evaluated)["nothing"]["masked_psnr"].value is None


def test_what_the_encoder_saw_is_not_evaluated_either(demo_folder, tmp_path, capsys):
    Encoder("resnet18", 0, origin=Origin("demo", ("bottle",), is_demo=True)).save(tmp_path / "e.safetensors")
    options = ["--data", str(demo_folder), "--steps", "1", "--out", str(tmp_path / "r"), *TINY]
    options[options.index("--encoder") + 1] = str(tmp_path / "e.safetensors")
    assert run_commands(COMMANDS, ["train", *options]) == 0
    line = refused(capsys, "evaluate", "--model", str(tmp_path / "r"), "--data", str(demo_folder), "--test", "bottle")
    assert "bottle was trained on" in line
    assert "was trained on" in refused(capsys, "evaluate", "--model", str(tmp_path / "r"), "--data", str(demo_folder))
