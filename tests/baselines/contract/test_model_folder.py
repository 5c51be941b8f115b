"""A model's folder: whole or the old one, of parts that belong together; other formats are refused."""

import json
from typing import NamedTuple

import pytest

from baselines.contract.method import METHOD_FILE
from baselines.contract.model_folder import FILE, FORMAT, check_format, check_parts, parts_of, write_model
from baselines.contract.threshold import Threshold
from baselines.trivial import MeanImage
from pretrain.command import UserError
from pretrain.files import unsealed


class Rule(NamedTuple):
    threshold: Threshold


def test_named_tuples_keep_their_names_at_every_depth(tmp_path):
    write_model(tmp_path, MeanImage(), rule=Rule(Threshold(1.0, 0.05, 3, "why")), category="nut")
    assert (tmp_path / METHOD_FILE).is_file()
    threshold = {"value": 1.0, "false_alarm_rate": 0.05, "count": 3, "why": "why"}
    stored = unsealed(json.loads((tmp_path / FILE).read_text()))
    parts = stored.pop("parts")
    assert list(parts) == [METHOD_FILE] and parts == parts_of(tmp_path)
    assert stored == {"rule": {"threshold": threshold}, "category": "nut", "format": FORMAT}


def test_a_model_stays_until_the_next_is_whole(tmp_path):
    write_model(tmp_path / "model", MeanImage(), category="nut")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    class Interrupted(MeanImage):
        def save(self, folder):
            super().save(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path / "model", Interrupted(), category="bolt")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    write_model(tmp_path / "model", MeanImage(), category="bolt")
    assert json.loads((tmp_path / "model" / FILE).read_text())["category"] == "bolt"


def test_parts_of_another_model_and_damaged_ones_are_refused(tmp_path):
    for name, size_px in (("first", 8), ("second", 9)):
        write_model(tmp_path / name, MeanImage(size_px=size_px), category="nut")
    first, second = ((tmp_path / name / METHOD_FILE).read_bytes() for name in ("first", "second"))
    parts = parts_of(tmp_path / "first")
    check_parts(tmp_path / "first", parts)
    for content, said in ((second, "damaged or another model's than inspector.json"), (first[:-1], "is damaged")):
        (tmp_path / "first" / METHOD_FILE).write_bytes(content)
        with pytest.raises(UserError, match=said):
            check_parts(tmp_path / "first", parts)
    (tmp_path / "first" / METHOD_FILE).unlink()
    with pytest.raises(UserError, match="is missing: copy the model whole"):
        check_parts(tmp_path / "first", parts)


def test_files_of_another_format_are_refused(tmp_path):
    check_format(tmp_path, FORMAT, FORMAT)
    with pytest.raises(UserError, match="older heldout .format 2, this one reads 3.: fit the model again"):
        check_format(tmp_path, 2, 3)
    with pytest.raises(UserError, match="newer heldout .format 4, this one reads 3.: update heldout"):
        check_format(tmp_path, 4, 3)
