"""Images in a bucket: listed, inspected, and results written there, by moto's server on this machine. Slow, and it
needs what the extra `test` does not bring, since moto takes 300 MB: pip install 'moto[server]' s3fs."""

import json
from collections.abc import Iterator
from io import BytesIO

import pytest
from fitted_models import run_detect
from manifests import images_to_inspect, rows_of, run_manifest

from pretrain.command import run_command
from pretrain.config import Manifest
from pretrain.data.images import SUFFIXES
from pretrain.data.manifest import import_parquet, read_rows
from pretrain.data.places import Place
from pretrain.manifest import main

pytestmark = pytest.mark.slow
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "thing", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip


@pytest.fixture(scope="module")
def store() -> Iterator:
    """s3fs, as the environment alone tells it where to go and who asks."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in CREDENTIALS.items():
            patched.setenv(name, value)
        patched.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        files = Place.of("s3://bolts").files
        files.mkdir("bolts")
        yield files
        type(files).clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def images(store, demo_folder, tmp_path_factory):
    folder = images_to_inspect(tmp_path_factory.mktemp("many") / "images", demo_folder)
    store.put(f"{folder}/", "s3://bolts/images/", recursive=True)
    return folder


def test_a_bucket_is_inspected_as_a_folder_is_and_nothing_twice(store, images, padim_folder, tmp_path):
    for data, out in ((images, tmp_path), ("s3://bolts/images", "s3://bolts/results of a day")):
        assert run_manifest(data, padim_folder, out) == 1
    files = store.find("bolts/results of a day", detail=True, refresh=True)
    rows = [row for name in files if name.endswith(".parquet")
            for row in import_parquet().read_table(BytesIO(store.cat_file(name))).to_pylist()]  # fmt: skip
    names = ("path", "score", "regions", "overlay", "digest", "reason", "is_defective")
    ours, theirs = ([{name: row[name] for name in names} for row in each] for each in (rows, rows_of(tmp_path)))
    assert sorted(ours, key=lambda row: row["path"]) == theirs and len(ours) == 26
    drawn = {name.rpartition("/")[2] for name in files if "/overlays/" in name}
    assert drawn == {path.name for path in (tmp_path / "overlays").iterdir()}
    assert json.loads(store.cat_file("bolts/results of a day/summary.json"))["images"] == 26
    assert run_manifest("s3://bolts/images", padim_folder, "s3://bolts/results of a day") == 1
    again = store.find("bolts/results of a day", detail=True, refresh=True)
    parts = [name for name in files if name.endswith(".parquet")]
    assert len(parts) > 3 and [again[name]["LastModified"] for name in parts] == [
        files[name]["LastModified"] for name in parts
    ]


def test_its_manifest_is_made_once_and_brought_up_to_date(store, images, padim_folder, tmp_path, capsys):
    file = tmp_path / "images.parquet"
    words = ["s3://bolts/images", "--out", str(file)]
    assert run_command(main, Manifest, words) == 0
    listed = list(read_rows(file))
    assert len(listed) == 26 and all(row.version.strip('"') for row in listed)  # etags
    store.pipe_file("bolts/images/day 0/000.png", (images / "day 0" / "003.png").read_bytes())
    assert run_command(main, Manifest, words) == 0
    assert "26 images, 0 of them new, 1 changed; 0 are gone" in capsys.readouterr().out
    assert run_detect("run", "--data", file, "--model", padim_folder, "--out", tmp_path / "out") == 1
    assert {row["path"] for row in rows_of(tmp_path / "out")} == {row.path for row in listed}


def test_keys_that_are_no_paths_are_images_all_the_same(store, images):
    data = (images / "day 0" / "000.png").read_bytes()
    for key in ("a//1.png", "a/1.png", "b.png", "c/ü ß.png"):
        store.pipe_file(f"bolts/odd/{key}", data)
    store.call_s3("put_object", Bucket="bolts", Key="odd/a/", Body=b"")  # as consoles make a folder
    place = Place.of("s3://bolts/odd")
    assert [row.path for row in place.listed(SUFFIXES)] == ["a//1.png", "a/1.png", "b.png", "c/ü ß.png"]
    assert place.image("a//1.png", 8).file_digest == place.image("a/1.png", 8).file_digest


@pytest.mark.parametrize(("data", "without"), [("s3://nobodys", ()), ("s3://bolts/images", CREDENTIALS)])
def test_a_bucket_that_is_not_there_or_not_ours_is_a_sentence(
    data, without, store, images, padim_folder, tmp_path, monkeypatch, capsys
):
    for name in without:
        if name.startswith("AWS_ACCESS") or name.startswith("AWS_SECRET"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody's credentials are
    type(store).clear_instance_cache()
    assert run_manifest(data, padim_folder, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert data in said.splitlines()[-1] and "Traceback" not in said
    type(store).clear_instance_cache()
