"""pull.py: what push.py sent is there and can be used, or the folder is as it was and a sentence says why."""

import shutil
from pathlib import Path

import pytest
from fitted_models import run_detect

from downstream import pull, push
from downstream.hub.config import Pull, Push
from downstream.hub.repository import checksums
from pretrain.command import run_command
from pretrain.encoder import fingerprint
from scripts.attacks.hub import Repository, hub_server


@pytest.fixture
def hub(monkeypatch):
    with hub_server(monkeypatch) as hub:
        yield hub


@pytest.fixture
def pushed(hub, encoder_file):
    assert run_command(push.main, Push, [str(encoder_file), "factory/enc"]) == 0
    return hub


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(*arguments: object) -> int:
    return run_command(pull.main, Pull, list(map(str, arguments)))


def test_a_pulled_encoder_is_the_one_that_was_pushed(pushed, encoder_file, tmp_path, capsys):
    assert run("factory/enc", "--out", tmp_path / "enc") == 0
    assert names(tmp_path / "enc") == {"encoder.safetensors", "README.md"}
    assert fingerprint(tmp_path / "enc" / "encoder.safetensors") == fingerprint(encoder_file)
    printed = capsys.readouterr().out
    assert pushed.repositories["factory/enc"].commit in printed and "saw hazelnut, leather" in printed


def test_a_pulled_model_is_the_one_that_was_pushed_and_was_opened(hub, demo_folder, tmp_path, capsys):
    model = tmp_path / "mean"
    small = ("--method", "mean", "--size-px", 32, "--out", model)
    assert run_detect("fit", "--data", demo_folder, "--category", "hazelnut", *small) == 0
    assert run_command(push.main, Push, [str(model), "factory/nut"]) == 0
    digest = capsys.readouterr().out.split()[-1]
    assert run("factory/nut", "--out", tmp_path / "nut", "--sha256", digest) == 0
    assert names(tmp_path / "nut") == names(model) | {"README.md"}
    for file in model.iterdir():
        assert (tmp_path / "nut" / file.name).read_bytes() == file.read_bytes()
    assert "MeanImage for hazelnut" in capsys.readouterr().out


def test_the_default_folder_is_named_like_the_repository(pushed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("factory/enc") == 0 and (tmp_path / "models" / "enc" / "encoder.safetensors").is_file()


def test_what_is_there_is_replaced_only_where_that_is_asked_for(pushed, encoder_file, tmp_path, capsys):
    folder = tmp_path / "enc"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    (folder / "encoder.safetensors").write_text("old")
    assert run("factory/enc", "--out", folder) == 2
    assert "--overwrite" in capsys.readouterr().err and (folder / "encoder.safetensors").read_text() == "old"
    assert run("factory/enc", "--out", folder, "--overwrite") == 0
    assert (folder / "mine.txt").read_text() == "kept"
    assert (folder / "encoder.safetensors").read_bytes() == encoder_file.read_bytes()


def test_versions_of_a_model_are_never_those_of_another(pushed, tmp_path, capsys):
    (tmp_path / "enc" / "versions" / "2").mkdir(parents=True)
    assert run("factory/enc", "--out", tmp_path / "enc", "--overwrite") == 2
    assert "has versions" in capsys.readouterr().err and names(tmp_path / "enc") == {"versions"}


def test_a_changed_file_leaves_nothing_behind(pushed, tmp_path, capsys):
    pushed.changed_on_the_way = "encoder.safetensors"
    assert run("factory/enc", "--out", tmp_path / "enc") == 2
    assert "was changed" in capsys.readouterr().err and names(tmp_path) == set()


def test_tensors_that_are_no_encoder_leave_nothing_behind(hub, tmp_path, capsys):
    foreign = Path(shutil.copy(__file__, tmp_path / "encoder.safetensors"))
    sums = checksums({foreign.name: foreign}).encode()
    hub.repositories["factory/odd"] = Repository(files={foreign.name: foreign.read_bytes(), "SHA256SUMS": sums})
    assert run("factory/odd", "--out", tmp_path / "odd") == 2
    error = capsys.readouterr().err
    assert "factory/odd is whole, but of no use here: factory/odd/encoder.safetensors is damaged" in error
    assert names(tmp_path) == {foreign.name}


def test_mistakes_are_found_before_anything_is_asked(hub, tmp_path, capsys):
    assert run() == run("a/b", "c/d") == run("enc") == run("a/b", "--sha256", "12") == 2
    assert hub.seen == []
