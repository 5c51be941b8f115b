"""report.json: what is in it, and what it says where little is finished."""

import json
import shutil
from pathlib import Path

import pytest

from downstream.study.cell import FORMAT
from downstream.study.record import RESTORATION_FILE
from downstream.study.summary import summarize
from pretrain.command import UserError


def test_it_holds_the_plan_and_counts_of_images_and_cells(summarized, study):
    summary, results = summarized
    assert summary["format"] == FORMAT
    assert summary["categories"] == ["bottle"] and summary["images"] == {"bottle": {"good": 6, "defective": 12}}
    assert summary["cells"] == {"finished": 16, "planned": 16}
    assert len(summary["rows"]) == len(results) == 8
    assert all(summary[name] == study[name] for name in ("data", "seeds", "shots", "versions", "encoders"))
    json.dumps(summary)


def test_a_study_of_which_nothing_is_finished_says_why(study, tmp_path):
    with pytest.raises(UserError, match="no cell of the study in .* is finished: no light"):
        summarize(tmp_path, study | {"failures": [{"reason": "no light"}]})


def test_restorers_are_told_where_they_were_compared(summarized, study_folder, study, tmp_path):
    out = Path(shutil.copytree(study_folder, tmp_path / "study"))
    assert summarized[0]["restoration"] is None
    table = {"lead": "l", "columns": ["restored by", "PSNR"], "rows": [["sadnet", "31.00"]], "note": "n"}
    (out / RESTORATION_FILE).write_text(json.dumps(table))
    assert summarize(out, study)[0]["restoration"] == table
