"""detect.py learn as its users meet it."""

import shutil

import pytest
from fitted_models import run_detect

from downstream.learning import learn as command
from downstream.learning.feedback import Feedback
from downstream.learning.versions import version_in_use


@pytest.fixture
def model(fused_folder, tmp_path):
    return shutil.copytree(fused_folder, tmp_path / "nut")


def test_it_shows_the_proof_and_says_how_to_go_on(model, sorted_images, capsys):
    assert run_detect("learn", "--model", model, "--feedback", sorted_images, "--promote", "if-better") == 0
    words = capsys.readouterr().out
    assert f"version 2 of {model} learned from" in words and "prove too little" in words
    assert f"detect.py promote --model {model} --version 2" in words
    assert version_in_use(model) == 1


def test_it_promotes_by_the_rule_alone(model, sorted_images, monkeypatch, capsys):
    monkeypatch.setattr(command, "why_not_better", lambda proof: "")
    assert run_detect("learn", "--model", model, "--feedback", sorted_images) == 0
    assert version_in_use(model) == 1
    assert run_detect("learn", "--model", model, "--feedback", sorted_images, "--promote", "if-better") == 0
    assert version_in_use(model) == 3 and "version 3 is in use; version 1 stays" in capsys.readouterr().out


def test_what_was_said_of_another_model_is_left_out(tmp_path, capsys):
    records = [Feedback(tmp_path / "a.png", "unsure", model=model) for model in ("", "nut", "bolt", "bolt")]
    assert command.of_model(tmp_path / "nut", records) == records[:2]
    assert capsys.readouterr().out == "left out: 2 records of the model bolt\n"


def test_mistakes_are_one_sentence(model, tmp_path, capsys):
    assert run_detect("learn", "--model", model, "--feedback", tmp_path / "nowhere") == 2
    assert "there is no file or folder of feedback" in capsys.readouterr().err
    assert run_detect("learn", "--model", tmp_path / "none", "--feedback", tmp_path) == 2
