"""Two studies side by side."""

import json
import shutil
from pathlib import Path

import pytest

from downstream.compare import main
from downstream.study.config import Compare
from pretrain.command import UserError, run_command
from pretrain.files import unsealed


def test_a_study_does_not_differ_from_itself(study_folder, tmp_path):
    arguments = ("--first", study_folder, "--second", study_folder, "--json", tmp_path / "comparison.json")
    assert run_command(main, Compare, list(map(str, arguments))) == 0
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["differs"] == {} and len(comparison["rows"]) == 8
    assert all(row["difference"] == 0 and row["p_holm"] == 1 for row in comparison["rows"])


def test_only_what_both_have_is_compared_and_what_differs_is_said(study_folder, tmp_path, capsys):
    other = Path(shutil.copytree(study_folder, tmp_path / "other"))
    for path in other.glob("cells/bottle/knn-*"):
        path.unlink()
    study = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps(unsealed(study) | {"size_px": 96}))
    main(Compare(study_folder, other))
    printed = capsys.readouterr().out
    assert "differs: size_px: 32 | 96" in printed
    assert "padim-SimCLR-all-normals" in printed and "knn" not in printed


@pytest.mark.parametrize("missing", ["first", "second"])
def test_a_folder_without_a_study_is_a_mistake(study_folder, tmp_path, missing):
    folders = {"first": study_folder, "second": study_folder} | {missing: tmp_path}
    with pytest.raises(UserError, match="there is no study in"):
        main(Compare(**folders))


def test_studies_without_a_common_cell_are_a_mistake(study_folder, tmp_path):
    study = json.loads((study_folder / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match="have no row, category and seed in common"):
        main(Compare(study_folder, tmp_path))
