"""What goes to the Hub and comes back: asked of a server of the test's own, through huggingface_hub."""

import pytest
from refusals import refusal

from downstream.hub.repository import checked_name, checksums, download, sha256, snapshot, upload
from scripts.attacks.hub import Hub, Repository, hub_server

NAME = "factory/bolt"


@pytest.fixture
def hub(monkeypatch):
    with hub_server(monkeypatch) as hub:
        yield hub


@pytest.fixture
def pushed(hub, tmp_path) -> Hub:
    """One repository, of a tensor file (which nobody opens here), a decision and a card."""
    files = {"encoder.safetensors": b"tensors" * 1000, "inspector.json": b"{}"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    sent = {**{name: tmp_path / name for name in files}, "README.md": b"# bolt"}
    upload(NAME, {**sent, "SHA256SUMS": checksums(sent).encode()}, "bolt")
    return hub


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pulled").mkdir()
    return tmp_path / "pulled"


def pulled(folder, expected=None) -> str:
    return download(snapshot(NAME, "main"), folder, expected)


def test_what_was_pushed_comes_back_bit_for_bit(pushed, folder, tmp_path):
    digest = pulled(folder)
    files = pushed.repositories[NAME].files
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == {
        name: files[name] for name in ("encoder.safetensors", "inspector.json", "README.md")
    }
    assert digest == sha256(files["SHA256SUMS"]) == pulled(folder, digest.upper())


def test_sha256sum_understands_the_checksums(pushed):
    lines = pushed.repositories[NAME].files["SHA256SUMS"].decode().splitlines()
    assert [line[64:] for line in lines] == ["  README.md", "  encoder.safetensors", "  inspector.json"]
    assert lines[1][:64] == sha256(b"tensors" * 1000)


def test_a_repository_is_private_unless_it_is_asked_to_be_public(hub):
    upload(NAME, {"README.md": b"a"}, "first")
    upload("factory/open", {"README.md": b"a"}, "first", public=True)
    upload(NAME, {"README.md": b"b"}, "second", public=True)  # what is there stays as it is
    assert {name: repository.private for name, repository in hub.repositories.items()} == {
        NAME: True, "factory/open": False,
    }  # fmt: skip
    assert hub.repositories[NAME].files == {"README.md": b"b"}


def test_nothing_is_asked_but_what_it_takes(pushed, folder):
    pulled(folder)
    asked = {(method, path) for method, path, _ in pushed.seen}
    resolved = {path.rpartition("/")[2] for method, path in asked if "/resolve/" in path}
    assert resolved == {*pushed.repositories[NAME].files}
    of_api = {path for _, path in asked if path.startswith("/api/")}
    models = f"/api/models/{NAME}"
    assert of_api == {"/api/repos/create", "/api/validate-yaml", f"{models}/preupload/main", f"{models}/commit/main",
                      f"{models}/revision/main"}  # fmt: skip
    agents = {headers["user-agent"] for _, path, headers in pushed.seen if not path.startswith("/lfs/")}
    assert agents and not [agent for agent in agents if "torch" in agent or "agent/" in agent]


def test_a_repository_with_a_pickle_is_refused_before_anything_is_fetched(pushed, folder):
    repository = pushed.repositories[NAME]
    for file in ("pytorch_model.bin", "a/model.pkl", "weights.pth", "model.joblib", "train.py", "Model.PT"):
        repository.files[file] = b"\x80\x04."
        pushed.seen.clear()
        assert f"holds {file}" in refusal(pulled, folder)
        assert [path for _, path, _ in pushed.seen if "/resolve/" in path] == []
        del repository.files[file]


def test_a_changed_file_is_refused(pushed, folder):
    files = pushed.repositories[NAME].files
    files["encoder.safetensors"] = files["encoder.safetensors"][:-1] + b"x"
    assert "encoder.safetensors of factory/bolt was changed since it was pushed" in refusal(pulled, folder)


@pytest.mark.parametrize("file", ["inspector.json", "README.md"])
def test_a_file_that_is_changed_on_its_way_is_refused(pushed, folder, file):
    pushed.changed_on_the_way = file
    assert f"{file} of factory/bolt was changed" in refusal(pulled, folder)


def test_files_that_were_changed_with_their_checksums_are_not_the_expected_ones(pushed, folder, tmp_path):
    before = pulled(folder)
    (tmp_path / "inspector.json").write_text('{"threshold": 99}')
    paths = {name: tmp_path / name for name in ("encoder.safetensors", "inspector.json")}
    upload(NAME, {**paths, "SHA256SUMS": checksums(paths).encode()}, "changed")
    assert f"is not what --sha256 asks for but {sha256(checksums(paths))}" in refusal(pulled, folder, before)


@pytest.mark.parametrize("file", ["../evil.safetensors", "a/b.safetensors", "notes.md", "gone.safetensors", "x"])
def test_checksums_name_nothing_else(pushed, folder, file):
    text = f"{'0' * 64}  {file}\n"
    pushed.repositories[NAME].files["SHA256SUMS"] = text.encode()
    assert "which is not there" in refusal(pulled, folder)
    assert not (folder.parent / "evil.safetensors").exists()


def test_what_heldout_did_not_push_is_refused(hub, folder):
    hub.repositories[NAME] = Repository(files={"model.safetensors": b"a"})
    assert "was not pushed by heldout" in refusal(pulled, folder)


def test_texts_that_never_end_are_not_fetched(pushed, folder):
    pushed.repositories[NAME].files["inspector.json"] = b" " * 2_000_000
    assert "has 2000000 bytes, too many" in refusal(pulled, folder)


def test_nor_are_tensors_without_end_or_of_another_size_than_was_said(pushed, folder):
    found, file = snapshot(NAME, "main"), "encoder.safetensors"
    pushed.seen.clear()
    endless = found._replace(sizes={**found.sizes, file: 10**12})
    assert "has 1000000000000 bytes, too many" in refusal(download, endless, folder)
    assert [path for _, path, _ in pushed.seen if path.endswith(file)] == []
    shorter = found._replace(sizes={**found.sizes, file: 5})
    assert "has 7000 bytes and not the 5" in refusal(download, shorter, folder)


def test_a_repository_that_is_not_there(hub, monkeypatch):
    assert "there is no repository factory/bolt at http://127.0.0.1" in refusal(snapshot, NAME, "main")
    hub.repositories[NAME] = Repository(private=True)
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "that you may see" in refusal(snapshot, NAME, "main")


def test_a_revision_that_is_not_there(pushed):
    assert "has no revision v9" in refusal(snapshot, NAME, "v9")
    assert snapshot(NAME, pushed.repositories[NAME].commit).sizes["README.md"] == 6


def test_pushing_without_the_right(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "nothing was pushed to factory/bolt, since http" in refusal(upload, NAME, {"README.md": b"a"}, "first")
    assert hub.repositories == {}


def test_a_server_that_is_no_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/lfs")  # answers everything with {}
    assert "answers as no Hub does ('id')" in refusal(snapshot, NAME, "main")


def test_a_name_that_the_hub_does_not_allow(hub):
    name = f"factory/{'b' * 200}"
    assert "is no name that the Hub allows" in refusal(snapshot, checked_name(name), "main")


def test_no_network(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for work, arguments in ((snapshot, (NAME, "main")), (upload, (NAME, {"README.md": b"a"}, "first"))):
        assert "http://127.0.0.1:9 could not be reached" in refusal(work, *arguments)


@pytest.mark.parametrize("name", ["bolt", "a/b/c", "../x", "a b/c", "", "https://huggingface.co/a/b"])
def test_a_name_that_is_none(name):
    assert "give OWNER/NAME" in refusal(checked_name, name)
