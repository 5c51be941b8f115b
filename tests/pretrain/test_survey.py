"""What the report says, to people and to machines."""

import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from conftest import REPOSITORY
from made_layouts import MADE
from PIL import Image

from pretrain.command import run_command
from pretrain.config import Survey
from pretrain.data.cache import store_folder
from pretrain.data.dataset import load
from pretrain.survey import main, sheet_rows, warnings_about


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(demo_folder, tmp_path / "copy"))


def survey(*arguments: object) -> subprocess.CompletedProcess:
    """In this process, which has imported already what a new one takes a second for."""
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = run_command(main, Survey, list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def test_clean_folder_has_no_warnings(demo_folder):
    assert warnings_about(load(demo_folder, 64)) == []


@pytest.mark.parametrize(
    ("source", "target", "warning"),
    [
        ("train/good/000.png", "test/good/900.png", "the same image in train and in test"),
        ("train/good/000.png", "test/scratch/900.png", "the same image called both good and defective"),
        ("train/good/000.png", "train/good/900.png", "the same image 2 times"),
    ],
)
def test_copies_are_warned_of(source, target, warning, folder):
    shutil.copy(folder / "bottle" / source, folder / "bottle" / target)
    lines = [line for line in warnings_about(load(folder, 64)) if "same image" in line]
    assert len(lines) == 1
    assert lines[0].startswith(warning) and source in lines[0] and target in lines[0]


def test_missing_masks_and_missing_normals_are_warned_of(folder):
    next((folder / "bottle/ground_truth").rglob("*.png")).unlink()
    shutil.rmtree(folder / "leather/train")
    warnings = warnings_about(load(folder, 64))
    assert warnings == [
        "bottle: 1 of 12 defective test images have no mask",
        "leather: no image in train/good, so nothing can be learned of what is normal",
    ]


def test_command_reports_to_people_and_machines(folder, tmp_path):
    (folder / "bottle/train/good/000.png").write_bytes(b"")
    done = survey(
        "--data", folder, "--size-px", 64, "--sheet", tmp_path / "a/sheet.png", "--json", tmp_path / "b/r.json"
    )
    assert done.returncode == 0, done.stderr
    assert "demo data" in done.stdout and "hazelnut" in done.stdout
    assert "bottle/train/good/000.png: the file is empty" in done.stderr
    report = json.loads((tmp_path / "b/r.json").read_text())
    assert report["data"].startswith("demo data")
    assert report["images"]["bottle"] == {
        "train": {"good": 11},
        "test": {"good": 6, "broken_large": 3, "broken_small": 3, "contamination": 3, "scratch": 3},
    }
    assert [problem["reason"] for problem in report["problems"]] == ["the file is empty (0 bytes)"]
    with Image.open(tmp_path / "a/sheet.png") as sheet:
        assert min(sheet.size) > 300


def test_a_damaged_cache_is_mended_and_said(folder):
    assert "damaged" not in survey("--data", folder, "--size-px", "32").stderr
    with open(store_folder(folder, 32) / "pixels.u8", "r+b") as file:
        file.write(b"damage")
    assert "1 images in the cache" in survey("--data", folder, "--size-px", "32").stderr
    assert "damaged" not in survey("--data", folder, "--size-px", "32").stderr


def test_strict_is_exit_code_2(folder):
    (folder / "bottle/train/good/000.png").write_bytes(b"")
    command = [sys.executable, REPOSITORY / "pretrain/survey.py", "--data", folder, "--size-px", "64", "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--data", "/nowhere"), ("--categories", "botle"), ("--size-px", "1")])
def test_user_errors_are_one_sentence(arguments, folder):
    done = survey("--data", folder, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_outputs_that_cannot_be_written_are_one_sentence(demo_folder, tmp_path):
    for option in ("--sheet", "--json"):
        done = survey("--data", demo_folder, "--size-px", 64, option, tmp_path)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_look_like_markup_are_shown_as_they_are(folder):
    (folder / "bottle").rename(folder / "[red]")
    assert "[red]" in survey("--data", folder, "--size-px", 64).stdout


def test_sheet_shows_good_ones_and_every_defect(demo_folder):
    rows = dict(sheet_rows(load(demo_folder, 64)))
    assert list(rows) == ["bottle", "hazelnut", "leather"]
    captions = [thumbnail.caption for thumbnail in rows["bottle"]]
    assert captions[:3] == ["good"] * 3
    assert {"broken_large", "broken_small", "contamination", "scratch"} <= set(captions)
    assert all((thumbnail.mask is None) == (thumbnail.caption == "good") for thumbnail in rows["bottle"])


@pytest.mark.parametrize(("layout", "normals"), [((), 5), (("--layout", "plain"), 0)])
def test_the_layout_is_found_out_or_said(layout, normals, tmp_path):
    MADE["table"](tmp_path / "lids")
    report = tmp_path / "report.json"
    done = survey(*layout, "--data", tmp_path / "lids", "--json", report)
    assert done.returncode == 0, done.stderr
    counts = json.loads(report.read_text())["images"]
    assert sum(of.get("train", {}).get("good", 0) for of in counts.values()) == normals
