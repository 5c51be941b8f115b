"""A model's folder: finished only with its last file, named tuples with their names, other formats refused."""

import json
from typing import NamedTuple

import pytest

from baselines.contract.method import METHOD_FILE
from baselines.contract.model_folder import FILE, FORMAT, check_format, write_metadata, write_model
from baselines.contract.threshold import Threshold
from baselines.trivial import MeanImage
from pretrain.command import UserError


class Rule(NamedTuple):
    threshold: Threshold


def test_named_tuples_keep_their_names_at_every_depth(tmp_path):
    write_model(tmp_path, MeanImage(), rule=Rule(Threshold(1.0, 0.05, 3, "why")), category="nut")
    assert (tmp_path / METHOD_FILE).is_file()
    threshold = {"value": 1.0, "false_alarm_rate": 0.05, "count": 3, "why": "why"}
    stored = json.loads((tmp_path / FILE).read_text())
    assert stored == {"rule": {"threshold": threshold}, "category": "nut", "format": FORMAT}


def test_a_model_is_not_finished_while_its_method_is_written(tmp_path):
    write_metadata(tmp_path, category="nut")

    class Interrupted(MeanImage):
        def save(self, folder):
            assert not (folder / FILE).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path, Interrupted(), category="nut")
    assert not (tmp_path / FILE).exists()


def test_files_of_another_format_are_refused(tmp_path):
    check_format(tmp_path, FORMAT, FORMAT)
    with pytest.raises(UserError, match="older heldout .format 2, this one reads 3.: fit the model again"):
        check_format(tmp_path, 2, 3)
    with pytest.raises(UserError, match="newer heldout .format 4, this one reads 3.: update heldout"):
        check_format(tmp_path, 4, 3)
