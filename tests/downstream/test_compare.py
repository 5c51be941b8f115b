"""Two studies side by side."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


def compare(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / "downstream/compare.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_a_study_does_not_differ_from_itself(study_folder, tmp_path):
    done = compare("--first", study_folder, "--second", study_folder, "--json", tmp_path / "comparison.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["differs"] == {} and len(found["rows"]) == 8
    assert all(row["difference"] == 0 and row["p_holm"] == 1 for row in found["rows"])


def test_only_what_both_have_is_compared_and_what_differs_is_said(study_folder, tmp_path):
    other = Path(shutil.copytree(study_folder, tmp_path / "other"))
    for path in other.glob("cells/bottle/knn-*"):
        path.unlink()
    study = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps(study | {"size_px": 96}))
    done = compare("--first", study_folder, "--second", other)
    assert done.returncode == 0
    assert "differs: size_px: 64 | 96" in done.stdout
    assert "padim-SimCLR-all-normals" in done.stdout and "knn" not in done.stdout


@pytest.mark.parametrize("missing", ["--first", "--second"])
def test_a_folder_without_a_study_is_a_mistake(study_folder, tmp_path, missing):
    folders = {"--first": study_folder, "--second": study_folder} | {missing: tmp_path}
    done = compare(*(part for pair in folders.items() for part in pair))
    assert done.returncode == 2 and "there is no study in" in done.stderr
