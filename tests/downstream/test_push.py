"""push.py: an encoder and a model arrive whole at a hub of the test's own, or nothing does and a sentence says why."""

import shutil

import pytest

from downstream import push
from downstream.hub.config import Push
from downstream.hub.repository import sha256
from pretrain.command import run_command
from scripts.attacks.hub import hub_server


@pytest.fixture
def hub(monkeypatch):
    with hub_server(monkeypatch) as hub:
        yield hub


def run(*arguments: object) -> int:
    return run_command(push.main, Push, list(map(str, arguments)))


def test_an_encoder_arrives_with_its_card(hub, encoder_file, capsys):
    assert run(encoder_file, "factory/enc", "--license", "mit") == 0
    repository = hub.repositories["factory/enc"]
    assert repository.private and {*repository.files} == {"encoder.safetensors", "SHA256SUMS", "README.md"}
    assert repository.files["encoder.safetensors"] == encoder_file.read_bytes()
    card = repository.files["README.md"].decode()
    assert "license: mit" in card and "hazelnut, leather" in card and "demo images" in card
    printed = capsys.readouterr().out
    assert f"--sha256 {sha256(repository.files['SHA256SUMS'])}" in printed and "no license" not in printed


def test_a_model_arrives_with_all_its_parts_and_nothing_else_of_its_folder(hub, padim_folder, tmp_path, capsys):
    folder = shutil.copytree(padim_folder, tmp_path / "nut")
    (folder / "notes.txt").write_text("of nobody's business")
    assert run(folder, "factory/nut", "--public") == 0
    files = hub.repositories["factory/nut"].files
    assert {*files} - {"SHA256SUMS", "README.md"} == {path.name for path in padim_folder.iterdir()}
    assert "interval" in files["README.md"].decode() and "hazelnut" in files["README.md"].decode()
    assert "the card states no license" in capsys.readouterr().out


def test_a_dry_run_sends_nothing(hub, encoder_file, capsys):
    assert run(encoder_file, "factory/enc", "--dry-run") == 0
    assert hub.seen == [] and "# enc" in capsys.readouterr().out


def test_what_is_neither_encoder_nor_model_is_refused(hub, encoder_file, tmp_path, capsys):
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04.")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(encoder_file.read_bytes()[:-1] + b"x")
    for source, reason in (
        (tmp_path, "holds neither a model"), (tmp_path / "weights.pth", "is no safetensors"),
        (damaged, "is damaged"), (tmp_path / "gone", "there is no encoder file"),
    ):  # fmt: skip
        assert run(source, "factory/enc") == 2
        assert reason in capsys.readouterr().err
    assert run(encoder_file) == run(encoder_file, "enc") == 2
    assert hub.seen == []
