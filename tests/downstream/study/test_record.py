"""A study's folder: what is read of it, and what is refused."""

import json
import shutil

import pytest

from downstream.study.cell import FORMAT
from downstream.study.record import (
    RESTORATION_FILE,
    STUDY_FILE,
    is_finished,
    read_restoration,
    read_results,
    read_study,
    write_study,
)
from pretrain.command import UserError


def test_what_was_written_is_read(tmp_path):
    write_study(tmp_path, {"seeds": [0]})
    assert read_study(tmp_path) == {"format": FORMAT, "seeds": [0]}
    file = tmp_path / STUDY_FILE
    file.write_text(file.read_text().replace("0", "1"))
    with pytest.raises(UserError, match="is damaged"):
        read_study(tmp_path)


def test_a_folder_without_a_study_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="there is no study in"):
        read_study(tmp_path)


@pytest.mark.parametrize("metadata", [{}, {"format": 1}, {"format": FORMAT + 1}])
def test_a_study_of_another_format_is_refused_with_what_to_do(metadata, tmp_path):
    (tmp_path / STUDY_FILE).write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=rf"format {metadata.get('format', 1)}, and .* reads format {FORMAT}: compute"):
        read_study(tmp_path)


def test_cells_that_are_missing_are_counted(study, study_folder):
    results, missing = read_results(study_folder, [*study["cells"], "cells/bottle/none.safetensors"])
    assert missing == 1 and sum(len(seeds) for row in results.values() for seeds in row.values()) == 16


def test_a_damaged_cell_is_left_out_and_named(study, study_folder, tmp_path, capsys):
    first, second = study["cells"][:2]
    for cell in (first, second):
        (tmp_path / cell).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study_folder / cell, tmp_path / cell)
    whole = (tmp_path / second).read_bytes()
    (tmp_path / second).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])  # a bit of a score or a map
    results, missing = read_results(tmp_path, [first, second, "cells/bottle/none.safetensors"])
    assert missing == 2 and sum(len(seeds) for row in results.values() for seeds in row.values()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / second) in line and "is damaged" in line


def test_a_damaged_cell_is_not_finished(study, study_folder, tmp_path, capsys):
    whole = study_folder / study["cells"][0]
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(whole.read_bytes()[:200])
    assert is_finished(whole) and not is_finished(tmp_path / "none.safetensors") and not is_finished(damaged)
    assert capsys.readouterr().err.count("It is computed again.") == 1


def test_the_table_of_restorers_is_read_where_there_is_one(tmp_path):
    assert read_restoration(tmp_path) is None
    table = {"lead": "l", "columns": ["restored by", "PSNR"], "rows": [["sadnet", "31.00"]], "note": "n"}
    (tmp_path / RESTORATION_FILE).write_text(json.dumps(table))
    assert read_restoration(tmp_path) == table
