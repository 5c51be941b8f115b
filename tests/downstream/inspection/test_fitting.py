"""What detect.py fit says of its images, and where its threshold comes from."""

import json
import shutil

from fitted_models import SMALL, run_detect


def test_a_plain_folder_of_good_images_is_enough(demo_folder, blotched, tmp_path, capsys):
    goods = tmp_path / "goods"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", goods)
    assert run_detect("fit", "--data", goods, "--out", tmp_path / "model", "--false-alarm-rate", "0.2", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "12 good images of goods" in printed and "started from random (" in printed
    encoder = json.loads((tmp_path / "model" / "inspector.json").read_text())["metadata"]["encoder"]
    assert encoder["started_from"] == {"name": "random", "fingerprint": encoder["fingerprint"]}
    assert run_detect("run", blotched / "b bad.png", "--model", tmp_path / "model", "--out", tmp_path / "out") == 1


def test_a_defect_among_the_good_ones_is_named(demo_folder, blotched, tmp_path, capsys):
    goods = tmp_path / "goods"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", goods)
    shutil.copy(blotched / "b bad.png", goods / "sneaked in.png")
    assert run_detect("fit", "--data", goods, "--out", tmp_path / "model", *SMALL) == 0
    suspects = [line for line in capsys.readouterr().out.splitlines() if line.startswith("suspicious")]
    assert suspects and "sneaked in.png" in suspects[0]


def test_few_references_take_their_threshold_from_other_categories(demo_folder, tmp_path, capsys):
    data = ("--data", demo_folder, "--category", "hazelnut", "--shots", "2", "--train", demo_folder)
    assert run_detect("fit", *data, "--out", tmp_path / "model", *SMALL) == 0
    assert "training categories" in capsys.readouterr().out
