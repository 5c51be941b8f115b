"""The study of restorers on held-out categories: who sees what, kept cells, the table."""

import json

import numpy as np
import pytest
import torch

from baselines.restoration.evaluation import DEGRADED
from downstream import restore
from downstream.restoration import study
from downstream.restoration.config import RestorationStudy
from downstream.restoration.study import CLEAN, RESTORED, ROWS, Detector, fewer_tests
from pretrain.command import Names, UserError, run_commands
from pretrain.data.dataset import load

COMMANDS = {"study": (restore.study, RestorationStudy)}
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
    cells = {row: json.loads((out / f"{row}-seed-0" / "evaluation.json").read_text()) for row in ("simclr", "random")}
    degraded = [cell["figures"]["degraded input"] for cell in cells.values()]
    assert degraded[0] == degraded[1] and degraded[0]["masked_psnr"]["count"] == 12
    for cell in cells.values():
        assert set(cell["detection_auroc"]) == {"clean", "degraded input", "restored"}
        assert all(0 <= value <= 1 for value in cell["detection_auroc"].values()) and cell["steps"] == 2


def test_finished_cells_are_kept(demo_folder, encoder_file, out, capsys):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")}
    again = ["study", "--data", str(demo_folder), "--train", "hazelnut,leather", "--test", "bottle", *TINY]
    again += ["--encoder", str(encoder_file), "--rows", "simclr", "--out", str(out)]
    assert run_commands(COMMANDS, again) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")} == before
    assert "| simclr | " in capsys.readouterr().out
    assert run_commands(COMMANDS, [*again, "--severity", "harsh"]) == 2
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


def test_few_test_images_are_as_many_good_as_defective_ones_and_of_all_defects(demo_folder):
    images = load(demo_folder, 32, Names("bottle"))
    some = fewer_tests(images, 8)
    tests = [record for record in some.records if record.split == "test"]
    assert sum(record.is_anomaly for record in tests) == 4 == len(tests) - 4
    assert len({record.defect for record in tests if record.is_anomaly}) == 4
    assert [r for r in some.records if r.split == "train"] == [r for r in images.records if r.split == "train"]
    assert fewer_tests(images, 1000).records == images.records == fewer_tests(images, None).records


def test_rows_share_what_padim_finds_in_clean_and_degraded_images(demo_folder, monkeypatch):
    images = load(demo_folder, 32, Names("bottle"))
    tests = [images.batch([i]) for i, record in enumerate(images.records) if record.split == "test"]
    labels = [record.is_anomaly for record in images.records if record.split == "test"]
    clean = [torch.from_numpy(image[0]).permute(2, 0, 1) / 255 for image in tests]
    asked = []
    monkeypatch.setattr(study, "_scores", lambda method, tests: asked.append(method) or np.arange(len(labels)))
    detector = Detector(None, 0, torch.device("cpu"))
    versions = dict.fromkeys((CLEAN, DEGRADED, RESTORED), clean)
    assert detector.aurocs(images, labels, versions) == detector.aurocs(images, labels, versions)
    assert len(asked) == 4 and len({id(method) for method in asked}) == 1  # the second time only what was restored


def test_ablations_have_rows():
    assert {"sadnet", "sadnet-published", "simclr-no-mask", "random", "imagenet-frozen"} <= set(ROWS)


def test_a_study_without_its_categories_is_a_sentence(demo_folder):
    with pytest.raises(UserError):
        restore.study(RestorationStudy(data=demo_folder, train=Names("leather"), test=Names("nothing")))
