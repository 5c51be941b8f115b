"""The commands of restoration as their users meet them: train, stop, go on, evaluate, restore; bad input."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pair_folders import folder_of_pairs, smooth
from PIL import Image

from baselines import sadnet as restoration
from baselines.contract.method import Pair
from baselines.contract.metrics import psnr
from baselines.restoration.evaluation import DEGRADED, judge, means, restored_figures
from baselines.restoration.image_files import read_exact, write_exact
from baselines.restoration.pairs import NamedPair
from downstream import restore
from pretrain.command import UserError, run_commands
from pretrain.files import read_tensors

COMMANDS = {
    "train": (restoration.train, restore.Train),
    "evaluate": (restore.evaluate, restore.Evaluate),
    "restore": (restore.restore, restore.Restore),
}
TINY = ("--encoder", "random", "--channels", "8", "--blocks", "1", "--input-size", "48", "--crop-px", "32",
        "--batch-size", "2", "--device", "cpu", "--train", "hazelnut,leather")  # fmt: skip


@pytest.fixture(scope="module")
def finished(demo_folder, tmp_path_factory):
    """A finished training of a few steps."""
    out = tmp_path_factory.mktemp("runs") / "restore"
    arguments = ["train", "--data", str(demo_folder), "--steps", "4", "--out", str(out), *TINY]
    assert run_commands(COMMANDS, arguments) == 0
    return out


def refused(capsys, *arguments: str) -> str:
    """The one sentence of a refusal with exit code 2."""
    assert run_commands(COMMANDS, arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_run_leaves_model_curves_and_what_it_learned_from(finished, capsys):
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "curves.png", "training.json", "model", "finished"} <= names
    assert "checkpoint.safetensors" not in names
    metadata = json.loads((finished / "training.json").read_text())
    assert (
        metadata["categories"] == ["hazelnut", "leather"]
        and metadata["steps"] == 4
        and "blur of sigma" in metadata["degradation"]
    )
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4)) and "masked_psnr" in lines[-1]


def test_a_killed_run_goes_on_to_the_same_weights(demo_folder, tmp_path, capsys):
    """Killed while it trains, as often as it takes, the same command ends where an undisturbed run ends."""
    ends = []
    for number, is_disturbed in enumerate((False, True)):
        out = tmp_path / str(number)
        arguments = ["train", "--data", str(demo_folder), "--steps", "60", "--checkpoint-minutes", "0.005"]
        arguments += ["--out", str(out), *TINY]
        if is_disturbed:
            command = [sys.executable, str(REPOSITORY / "downstream/restore.py"), *arguments]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (out / "finished").exists(), "it was too quick to be killed"
        assert run_commands(COMMANDS, arguments) == 0
        assert ("going on after step" in capsys.readouterr().out) == is_disturbed
        ends.append(read_tensors(out / "model" / "method.safetensors")[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_evaluate_tables_the_degraded_input_beside_what_was_restored(demo_folder, finished, tmp_path, capsys):
    out = tmp_path / "test"
    arguments = [
        "evaluate",
        "--model",
        str(finished),
        "--data",
        str(demo_folder),
        "--test",
        "bottle",
        "--out",
        str(out),
    ]
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


def test_what_was_trained_on_is_not_judged_unless_said_aloud(demo_folder, finished, tmp_path, capsys):
    arguments = ("evaluate", "--model", str(finished), "--data", str(demo_folder), "--out", str(tmp_path))
    assert "leather was trained on" in refused(capsys, *arguments, "--test", "leather,bottle")
    assert run_commands(COMMANDS, [*arguments, "--shown", "0"]) == 0  # those that are left: bottle
    assert "tested on bottle (" in capsys.readouterr().out
    assert run_commands(COMMANDS, [*arguments, "--test", "leather", "--allow-seen", "--shown", "0"]) == 0
    assert "SEEN IN" in capsys.readouterr().out


def test_real_pairs_teach_and_judge(tmp_path, capsys):
    pairs, out = folder_of_pairs(tmp_path / "pairs"), tmp_path / "run"
    options = (
        "--encoder",
        "random",
        "--channels",
        "8",
        "--blocks",
        "1",
        "--crop-px",
        "32",
        "--batch-size",
        "2",
        "--device",
        "cpu",
    )
    arguments = [
        "train",
        "--pairs",
        str(pairs),
        "--train",
        "bolt",
        "--input-size",
        "48",
        "--steps",
        "3",
        "--out",
        str(out),
    ]
    assert run_commands(COMMANDS, [*arguments, *options]) == 0
    for interpolate in ("--interpolate", "--no-interpolate"):
        judged = ["evaluate", "--model", str(out), "--pairs", str(pairs), "--test", "nut", interpolate]
        assert run_commands(COMMANDS, judged) == 0
        with Image.open(out / "test" / "images" / "nut" / "cut" / "000.png") as strip:
            assert strip.height == 22 + (40 if interpolate == "--interpolate" else 48)
    assert run_commands(COMMANDS, [*judged[:-1], "--input-size", "0"]) == 0
    folder_of_pairs(tmp_path / "bare", masks=False)
    line = refused(
        capsys, "train", "--pairs", str(tmp_path / "bare"), "--out", str(tmp_path / "r"), "--steps", "1", *options
    )
    assert "has no masks" in line and "--beta 0" in line
    bare = ["train", "--pairs", str(tmp_path / "bare"), "--out", str(tmp_path / "b"), "--steps", "2", "--beta", "0"]
    assert run_commands(COMMANDS, [*bare, "--input-size", "48", *options]) == 0
    assert "NaN" not in (tmp_path / "b" / "metrics.jsonl").read_text()
    judged = ["evaluate", "--model", str(out), "--pairs", str(tmp_path / "bare")]
    assert run_commands(COMMANDS, judged) == 0
    assert "n/a" in capsys.readouterr().out
    next((tmp_path / "bare").rglob("GT_clean_image/cut/000.png")).unlink()
    assert "lack their partner" in refused(capsys, *judged)


def test_mistakes_of_training_leave_nothing_behind(demo_folder, finished, tmp_path, capsys):
    def told(*more: str) -> str:
        return refused(capsys, "train", "--data", str(demo_folder), "--out", str(tmp_path / "r"), *TINY, *more)

    assert "did you mean medium" in told("--level", "mediun")
    assert "choose crop_px" in told("--crop-px", "64")
    assert "alpha 0" in told("--alpha", "0")
    assert "not all 0" in told("--loss-weights", "[0,0,0]")
    assert "--minutes must be above 0" in told("--minutes", "-1")
    assert "half cosines" in told("--half-cosines", "2")
    assert "did you mean hazelnut?" in told("--train", "hazelnot")
    assert not (tmp_path / "r").exists()
    line = refused(capsys, "train", "--data", str(demo_folder), "--out", str(finished), *TINY, "--steps", "5")
    assert "steps was 4 and is 5" in line
    assert "no finished training" in refused(capsys, "evaluate", "--model", str(tmp_path))
    assert "MB are too few" in refused(capsys, "restore", "x.png", "--model", str(finished), "--memory-mb", "1")


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(demo_folder, tmp_path, capsys):
    arguments = ("--steps", "30", "--learning-rate", "1e30", "--warmup", "0", "--out", str(tmp_path / "r"))
    assert "not a number any more" in refused(capsys, "train", "--data", str(demo_folder), *TINY, *arguments)


def deep_files(folder):
    """Images of every kind that can be kept exactly."""
    folder.mkdir()
    color = (smooth(1, 30, 41)[0].permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    for name in ("deep.png", "deep.tiff"):
        write_exact(_exact(color), folder / name)
    eight = (color >> 8).astype(np.uint8)
    Image.fromarray(color[..., 0]).save(folder / "deep_gray.png")
    Image.fromarray(eight).save(folder / "color.png")
    Image.fromarray(eight[..., 0]).save(folder / "gray.bmp")
    Image.fromarray(np.dstack((eight, eight[..., 0]))).save(folder / "clear.png")
    Image.fromarray(eight).convert("P").save(folder / "palette.png")
    Image.fromarray(eight).save(folder / "photo.jpg")
    return folder


def _exact(pixels):
    from baselines.restoration.image_files import ExactImage

    return ExactImage(torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1), False, True)


def test_files_are_read_and_written_with_all_their_levels(tmp_path):
    folder = deep_files(tmp_path / "in")
    for path in sorted(folder.iterdir()):
        write_exact(read_exact(path), tmp_path / "out" / path.name)
        first, second = read_exact(path), read_exact(tmp_path / "out" / path.name)
        assert (first.is_gray, first.is_deep, first.alpha is None) == (
            second.is_gray,
            second.is_deep,
            second.alpha is None,
        )
        if path.suffix == ".jpg":
            assert psnr(first.image[None], second.image[None]) > 30
        else:
            assert torch.equal(first.image, second.image), path.name
    assert read_exact(folder / "deep.png").is_deep and read_exact(folder / "deep.tiff").is_deep
    assert read_exact(folder / "deep_gray.png").is_deep and read_exact(folder / "gray.bmp").is_gray
    assert (read_exact(folder / "deep.png").image * 65535 % 257 > 1).any()  # more than 8 bits of levels
    assert len(list((tmp_path / "out").iterdir())) == 8  # nothing unfinished is left


def test_restore_keeps_names_sizes_and_depths_and_tells_of_what_it_cannot_read(finished, tmp_path, capsys):
    folder, out = deep_files(tmp_path / "in"), tmp_path / "out"
    (folder / "sub").mkdir()
    Image.new("RGB", (9, 7), "red").save(folder / "sub" / "small.png")
    (folder / "broken.png").write_bytes(b"no image")
    assert run_commands(COMMANDS, ["restore", str(folder), "--model", str(finished), "--out", str(out)]) == 3
    said = capsys.readouterr()
    assert "9 images restored" in said.out and "broken.png" in said.err
    for path in (path for path in folder.rglob("*.*") if path.name != "broken.png"):
        before, after = read_exact(path), read_exact(out / path.relative_to(folder))
        assert before.image.shape == after.image.shape and before.is_deep == after.is_deep
        assert before.alpha is None or np.array_equal(before.alpha, after.alpha)
    assert "would write over" in refused(capsys, "restore", str(folder), "--model", str(finished), "--out", str(folder))
    assert "no images to restore" in refused(capsys, "restore", "--model", str(finished))
    assert "no folder" in refused(capsys, "restore", str(tmp_path / "none"), "--model", str(finished))


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


def test_a_perfect_image_is_counted_and_kept_out_of_means():
    image = smooth(1, 40, 50)[0]
    noisy = (image + 0.1).clamp(0, 1)
    pairs = [NamedPair(name, "bolt", Pair(degraded, image, None)) for name, degraded in (("a", image), ("b", noisy))]
    judged = [one for one, _ in judge(pairs, lambda images: images, "nothing")]
    assert means(judged)["nothing"] == means(judged)[DEGRADED]
    mean = means(judged)["nothing"]["psnr"]
    assert mean.perfect == 1 and mean.count == 2
    assert mean.value == pytest.approx(psnr(noisy[None], image[None]).item())
    assert means(judged)["nothing"]["masked_psnr"].value is None


def test_what_the_encoder_saw_is_not_judged_either(demo_folder, tmp_path, capsys):
    from pretrain.encoder import Encoder, Origin

    Encoder("resnet18", 0, origin=Origin("demo", ("bottle",), is_demo=True)).save(tmp_path / "e.safetensors")
    options = ["--data", str(demo_folder), "--steps", "1", "--out", str(tmp_path / "r"), *TINY]
    options[options.index("--encoder") + 1] = str(tmp_path / "e.safetensors")
    assert run_commands(COMMANDS, ["train", *options]) == 0
    line = refused(capsys, "evaluate", "--model", str(tmp_path / "r"), "--data", str(demo_folder), "--test", "bottle")
    assert "bottle was trained on" in line
    assert "was trained on" in refused(capsys, "evaluate", "--model", str(tmp_path / "r"), "--data", str(demo_folder))
