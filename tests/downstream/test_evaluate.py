"""The command of the study: what it leaves, that it resumes after a kill, and what it says to bad input."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, STUDY_OPTIONS
from event_files import tracked
from filelock import FileLock
from two_ranks import imported

from downstream.evaluate import compare_restorers, main
from downstream.methods.catalogue import METHODS
from downstream.restoration.study import compute_study
from downstream.study import folds
from downstream.study.cell import read_cell
from downstream.study.config import Evaluate
from downstream.study.record import RESTORATION_FILE
from pretrain.command import Names, UserError, read_config, run_command
from pretrain.files import unsealed

SCRIPT = str(REPOSITORY / "downstream/evaluate.py")


def evaluate(*arguments: object) -> int:
    """The command in this process; torch is imported already."""
    return main(read_config(Evaluate, list(map(str, arguments))))


def evaluate_in(threads: int, *arguments: object) -> None:
    torch.set_num_threads(threads)  # which can change the last bits
    evaluate(*arguments)


def cells(out: Path) -> dict[str, Path]:
    return {path.name: path for path in out.glob("cells/*/*.safetensors")}


@pytest.fixture
def options(demo_folder, encoder_file, small_methods, monkeypatch) -> tuple:
    """Those of the study that all tests share, and its methods."""
    for name, entry in small_methods.items():
        monkeypatch.setitem(METHODS, name, entry)
    return ("--data", demo_folder, "--encoder", encoder_file, *STUDY_OPTIONS)


def test_all_cells_are_there(study_folder):
    # k-NN with 2 encoders, PaDiM with 2 encoders and 2 numbers of references, 2 controls; 2 seeds.
    assert len(cells(study_folder)) == (2 + 4 + 2) * 2
    report = json.loads((study_folder / "report.json").read_text())
    assert report["cells"] == {"finished": 16, "planned": 16}
    assert report["failures"] == []
    assert {row["name"] for row in report["rows"]} >= {"knn-SimCLR", "padim-random-2-normals", "frame-all-normals"}
    assert (study_folder / "report.html").stat().st_size < 15e6


def test_table_fits_a_hundred_columns_and_names_what_it_is(study_folder):
    printed = (study_folder / "printed.txt").read_text()
    lines = [line for line in printed.splitlines() if not line.startswith(("report:", "figures for machines:"))]
    assert max(map(len, lines)) <= 100
    assert "demo data" in printed


def test_a_killed_study_resumes_to_what_an_uninterrupted_one_has(study_folder, options, tmp_path):
    out = tmp_path / "study"
    options = [*options, "--methods", "padim"]  # its process has the catalogue as it is
    process = imported().Process(target=evaluate_in, args=(torch.get_num_threads(), *options, "--out", out))
    process.start()
    deadline = time.monotonic() + 120
    while len(cells(out)) < 3:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    before = {name: path.stat().st_mtime_ns for name, path in cells(out).items()}
    assert 3 <= len(before) < 12
    assert evaluate("--only-report", "--out", out) == 0
    assert json.loads((out / "report.json").read_text())["cells"]["finished"] == len(before)
    assert evaluate(*options, "--out", out) == 0
    after = cells(out)
    assert {name: after[name].stat().st_mtime_ns for name in before} == before
    assert len(after) == 12 and after.keys() <= cells(study_folder).keys()
    for name, path in after.items():
        ours, theirs = read_cell(path), read_cell(cells(study_folder)[name])
        assert ours.scores.tolist() == theirs.scores.tolist()
        assert ours.threshold == theirs.threshold and ours.pixel == theirs.pixel


def test_a_damaged_cell_is_computed_again_and_others_are_not(study_folder, options, tmp_path, capsys):
    out = Path(shutil.copytree(study_folder, tmp_path / "study"))
    damaged, *others = cells(out).values()
    damaged.write_bytes(damaged.read_bytes()[:200])
    before = {path: path.stat().st_mtime_ns for path in others}
    assert evaluate(*options, "--out", out) == 0
    assert "It is computed again." in capsys.readouterr().err
    read_cell(damaged)
    assert {path: path.stat().st_mtime_ns for path in others} == before


def test_only_report_needs_no_images(study_folder, tmp_path):
    out = Path(shutil.copytree(study_folder, tmp_path / "study"))
    study = json.loads((out / "study.json").read_text())
    (out / "study.json").write_text(json.dumps(unsealed(study) | {"folder": str(tmp_path / "gone")}))
    (out / "report.html").unlink()
    assert evaluate("--only-report", "--out", out) == 0
    assert "not on this disk any more" in (out / "report.html").read_text()
    figures = [json.loads((folder / "report.json").read_text())["rows"] for folder in (out, study_folder)]
    assert figures[0] == figures[1]


def test_a_later_report_does_not_call_a_study_finished_whose_restorers_failed(
    study_folder, options, tmp_path, monkeypatch
):
    out, ends = Path(shutil.copytree(study_folder, tmp_path / "study")), []
    monkeypatch.setattr("downstream.evaluate.compare_restorers", lambda config: False)
    monkeypatch.setattr("downstream.report.tracking.Trackers.end", lambda self, status, of_parts: ends.append(status))
    assert evaluate(*options, "--out", out) == 1
    assert evaluate("--only-report", "--track", "tensorboard", "--out", out) == 0
    assert ends[-1] == "FAILED"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--train", "bottle,leather", "--test", "bottle"), "is in --train and in --test"),
        (("--only-report",), "there is no study in"),
    ],
)
def test_user_errors_are_one_sentence(typed, words, demo_folder, encoder_file, tmp_path, capsys):
    arguments = ["--data", demo_folder, "--encoder", encoder_file, "--out", tmp_path / "study", *typed]
    assert run_command(main, Evaluate, list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not cells(tmp_path / "study")


def test_out_that_cannot_be_written_is_a_sentence(options, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = [*map(str, options), "--out", str(tmp_path / "file/study")]
    assert run_command(main, Evaluate, arguments) == 2
    error = capsys.readouterr().err
    assert "put that right, or name another path" in error and "Traceback" not in error


def test_poor_categories_are_told_and_the_rest_goes_on(demo_folder, mlflow_files, tmp_path, capsys):
    """bottle has no test images, hazelnut no normals and no masks, leather one test image. To trackers the study has
    failed, with every row of it."""
    folder = Path(shutil.copytree(demo_folder, tmp_path / "copy"))
    shutil.rmtree(folder / "bottle/test")
    shutil.rmtree(folder / "hazelnut/train")
    shutil.rmtree(folder / "hazelnut/ground_truth")
    for path in sorted(folder.glob("leather/test/*/*.png"))[1:]:
        path.unlink()
    out = tmp_path / "study"
    assert evaluate(
        "--data", folder, "--encoder", "none", "--out", out, "--protocol", "one-class", "--methods", "padim",
        "--test", "bottle,hazelnut,leather", "--shots", "all", "--seeds", "0", "--size-px", "32",
        "--track", "tensorboard,mlflow",
    ) == 1  # fmt: skip
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    told = " ".join(printed.out.split())
    for words in ("bottle: no test images", "hazelnut: no normals in train/good", "leather: all 1 test images"):
        assert words in told
    report = json.loads((out / "report.json").read_text())
    rows = [row for row in report["rows"] if row["method"] == "padim"]
    assert [row["encoder"] for row in rows] == ["random", "ImageNet"]
    assert all(list(row["categories"]) == ["leather"] for row in rows)
    assert all(row["figures"]["auroc"]["mean"] is None for row in rows)
    assert "n/a" in (out / "report.html").read_text()
    runs = mlflow_files.search_runs([mlflow_files.get_experiment_by_name("heldout").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert by_name.keys() == {"study", *(row["name"] for row in report["rows"])} and len(runs) == len(by_name)
    assert {run.info.status for run in runs} == {"FAILED"}
    study = by_name.pop("study")
    assert {run.data.tags["mlflow.parentRunId"] for run in by_name.values()} == {study.info.run_id}
    assert study.data.params["methods"] == "padim,mean,frame" and study.data.params["test"] == "bottle,hazelnut,leather"
    images = {"report.html", "report.json", "gallery.png"}
    assert {file.path for file in mlflow_files.list_artifacts(study.info.run_id)} == images
    assert tracked(out)["images"] == ["gallery"]


def test_other_options_are_other_cells(study_folder, demo_folder, encoder_file, tmp_path):
    """Nothing of a study with another rate or another encoder is taken for this one's."""
    out = tmp_path / "study"
    options = ("--train", "hazelnut,leather", "--test", "bottle", "--methods", "padim", "--shots", "2", "--seeds", "0",
               "--size-px", "32", "--false-alarm-rate", "0.2", "--device", "cpu")  # fmt: skip
    assert evaluate("--data", demo_folder, "--encoder", encoder_file, "--out", out, *options) == 0
    assert not cells(out).keys() & cells(study_folder).keys()
    start = "padim-SimCLR-2-normals-seed-0"
    (first,) = (read_cell(path) for name, path in cells(out).items() if name.startswith(start))
    (other,) = (read_cell(path) for name, path in cells(study_folder).items() if name.startswith(start))
    assert first.scores.tolist() == other.scores.tolist()
    assert first.threshold.value < other.threshold.value


def test_two_at_once_into_one_folder_is_refused_and_leaves_its_plan_alone(study_folder, options, tmp_path):
    out = Path(shutil.copytree(study_folder, tmp_path / "study"))
    before = (out / "study.json").read_bytes()
    with FileLock(out / "lock"), pytest.raises(UserError, match="another process computes in"):
        evaluate(*options, "--out", out, "--false-alarm-rate", "0.2")
    assert (out / "study.json").read_bytes() == before


@pytest.mark.parametrize("share", [("--cores", "0"), ("--memory-gb", "-1")])
def test_what_is_no_share_of_a_machine_is_refused(study_folder, options, share):
    with pytest.raises(UserError, match="are no share of a machine"):
        evaluate(*options, "--out", study_folder, *share)


def test_help_is_quick():
    start_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0 and time.monotonic() - start_s < 10
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "torchvision", "sklearn", "faiss"}


@pytest.mark.slow
def test_restorers_are_compared_on_the_same_categories(demo_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folds, "DEFAULT_TRAIN", Names("hazelnut,leather"))
    monkeypatch.setattr(folds, "DEFAULT_TEST", Names("bottle"))
    # One step each, where SADNet alone would be timed over five.
    smaller = {"input_size": 32, "crop_px": 32, "minutes": None, "steps": 1}
    monkeypatch.setattr("downstream.evaluate.compute_study", lambda study: compute_study(replace(study, **smaller)))
    config = Evaluate(
        data=demo_folder, encoder=Names("none"), quick=True, restoration_minutes=0.02, device="cpu", out=tmp_path
    )
    assert compare_restorers(config)
    table = json.loads((tmp_path / RESTORATION_FILE).read_text())
    assert [row[0] for row in table["rows"]] == ["degraded input", "sadnet", "imagenet"]
    assert (
        "Tested on at most 12 test images each of bottle" in table["lead"]
        and "learned from hazelnut,leather" in table["lead"]
        and len(table["columns"]) == len(table["rows"][0])
    )
    assert not compare_restorers(replace(config, train=Names("bottle"), out=tmp_path / "other"))
    assert "restorers are not compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    "left_out", [{"methods": Names("mean")}, {"restoration_minutes": 0.0}, {"protocol": "one-class"}]
)
def test_restorers_are_left_out_where_nobody_asked(left_out, tmp_path):
    assert compare_restorers(Evaluate(out=tmp_path, **left_out))
    assert not any(tmp_path.iterdir())
