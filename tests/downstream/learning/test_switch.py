"""detect.py promote, roll-back and versions."""

import pytest
import torch
from fitted_models import run_detect

from baselines.contract.model_folder import fill_model, write_model
from downstream.learning.versions import add_version, changing, version_in_use
from pretrain.files import write_json, write_tensors

FIGURES = {"good": 8, "defective": 9, "false_alarms": 1, "missed": 2}


class Tiny:
    def save(self, folder) -> None:
        write_tensors(folder / "method.safetensors", {"number": torch.tensor(1)}, {})


@pytest.fixture
def model(tmp_path):
    """Two versions, the second one proved."""
    folder = tmp_path / "nut"
    write_model(folder, Tiny(), category="nut", metadata={})

    def write(unfinished) -> None:
        said = {"version": 2, "learned": {"good": 30, "defective": 4}, "made": "2026-01-31T10:00:00"}
        fill_model(unfinished, Tiny(), category="nut", metadata=said)
        proof = {"in_use": 1, "figures": {"in_use": FIGURES, "new": {**FIGURES, "missed": 0}}}
        write_json(unfinished / "proof.json", proof)

    with changing(folder):
        add_version(folder, 2, write)
    return folder


def test_forth_and_back_and_what_there_is(model, capsys):
    assert run_detect("promote", "--model", model, "--by", "anna") == 0
    assert version_in_use(model) == 2 and "version 2 of" in capsys.readouterr().out
    assert run_detect("versions", "--model", model) == 0
    words = capsys.readouterr().out
    assert "30 good, 4 defective" in words and "1 false alarms of 8, 0 missed of 9 (version 1: 1, 2)" in words
    assert "version 2 promoted by anna" in words and "version 1 fitted" in words
    assert run_detect("roll-back", "--model", model) == 0
    assert version_in_use(model) == 1 and "version 2 stays" in capsys.readouterr().out
    assert run_detect("promote", "--model", model, "--version", "2") == 0


def test_mistakes_are_one_sentence(model, tmp_path, capsys):
    run_detect("promote", "--model", model)
    assert run_detect("promote", "--model", model) == 2
    assert "the newest version" in capsys.readouterr().err
    assert run_detect("versions", "--model", tmp_path / "nowhere") == 2
    assert "there is no model in" in capsys.readouterr().err
