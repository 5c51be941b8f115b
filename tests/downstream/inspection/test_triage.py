"""A mixed folder is ranked, written down and drawn; what cannot be ranked is one sentence."""

import json
import shutil

import numpy as np
import pytest
from fitted_models import run_detect
from PIL import Image

SMALL = ("--size-px", "64", "--encoder", "random")


def test_the_defective_one_comes_first_and_is_shown(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_detect("triage", mixed, "--out", out, "--show", "4", *SMALL) == 0
    lines = [json.loads(line) for line in (out / "triage.jsonl").read_text().splitlines()]
    assert [line["rank"] for line in lines] == list(range(1, 14))
    assert lines[0]["path"].endswith("sneaked in.png") and lines[0]["is_outlier"]
    scores = [line["score"] for line in lines]
    assert scores == sorted(scores, reverse=True) and "label" not in lines[0]
    words = capsys.readouterr().out
    assert "by the folder's labels" not in words
    (following,) = (line for line in words.splitlines() if line.startswith("next:"))
    assert f"python downstream/detect.py fit --data {mixed} --" in following
    assert "--size-px 64" in following and "--allow-contamination 0." in following
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 3 * 2 * 200 and sheet.height > 2 * 200  # three with their heatmaps in a row, two rows
        assert len(np.unique(np.asarray(sheet))) > 50


def test_labels_are_printed_afterwards(demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("triage", demo_folder, "--category", "hazelnut", "--out", out, *SMALL)
    assert run_detect(*arguments, "--split", "test") == 0
    labels = [json.loads(line)["label"] for line in (out / "triage.jsonl").read_text().splitlines()]
    defective = sum(label != "good" for label in labels)
    found = sum(label != "good" for label in labels[:defective])
    words = capsys.readouterr().out
    assert f"{found} of the worst {defective} images are defective" in words and "AUROC" in words
    # What fit would see, train/good, was not looked at: nothing is said of what to leave out there.
    assert f"fit --data {demo_folder} --category hazelnut" in words.splitlines()[-1]
    assert "--allow-contamination" not in words.splitlines()[-1]
    assert run_detect(*arguments) == 0  # all splits
    assert len((out / "triage.jsonl").read_text().splitlines()) == len(labels) + 12


def test_files_that_are_no_images_are_named_and_the_rest_ranked(mixed, tmp_path, capsys):
    (mixed / "broken.png").write_bytes(b"not an image")
    assert run_detect("triage", mixed, "--out", tmp_path / "out", *SMALL) == 0
    assert len((tmp_path / "out" / "triage.jsonl").read_text().splitlines()) == 13
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "arguments", "words"),
    [
        (1, (), "1 images cannot be told apart from the rest: give 3 or more"),
        (2, (), "2 images cannot be told apart"),
        (4, (), "all 4 images are the same"),
        (4, ("--show", "0"), "--show 0 shows nothing"),
        (4, ("--split", "tset"), "no split"),
        (4, ("--size-px", "0"), "0 px: choose from 8"),
    ],
)
def test_what_cannot_be_ranked_is_one_sentence(count, arguments, words, blotched, tmp_path, capsys):
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(count):
        shutil.copy(blotched / "a good.png", folder / f"{number}.png")
    assert run_detect("triage", folder, "--out", tmp_path / "out", *SMALL, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_folder_is_needed_and_one_alone(mixed, tmp_path, capsys):
    assert run_detect("triage") == 2 and "0 folders were named" in capsys.readouterr().err
    for name in ("gone", "a good.png"):
        assert run_detect("triage", mixed.parent / "line 3" / name, *SMALL) == 2
        assert f"{name} is no folder: name one of images" in capsys.readouterr().err
    for path in mixed.iterdir():
        path.write_bytes(b"not an image")
    assert run_detect("triage", mixed, "--out", tmp_path / "out", *SMALL) == 2
    assert "none of the 13 images" in capsys.readouterr().err
    assert run_detect("triage", mixed, "--against", "1", *SMALL) == 2
