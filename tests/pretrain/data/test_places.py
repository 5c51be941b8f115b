"""The same images from a folder, an archive and a URL: in one order, with the same pixels, or with the same reason."""

import shutil

import fsspec
import numpy as np
import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data.channels import Channels, read_image
from pretrain.data.decode import Unreadable
from pretrain.data.images import SUFFIXES
from pretrain.data.levels import Range
from pretrain.data.places import Place

NAMES = ["a-b/1.png", "a.png", "a/1.png", "a/b/2.PNG", "ab.jpg", "ü/ß.png"]


@pytest.fixture
def folder(tmp_path):
    """Images below a folder, with what is none."""
    root = tmp_path / "images"
    for number, name in enumerate([*NAMES, ".hidden.png", ".git/x.png", "notes.txt"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9 + number, 8), (20 * number, 0, 9)).save(
            root / name, "JPEG" if name[-3:] == "jpg" else "PNG"
        )
    (root / "gone.png").symlink_to(root / "nowhere")
    return root


@pytest.fixture
def places(folder, tmp_path):
    """The same files wherever files may lie."""
    kept = shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    (kept / "gone.png").unlink()
    memory = fsspec.filesystem("memory")
    memory.put(f"{kept}/", "memory://places-test/", recursive=True)
    yield {
        "folder": Place.of(str(kept)),
        "zip": Place.of(shutil.make_archive(tmp_path / "shard", "zip", kept)),
        "tar": Place.of(shutil.make_archive(tmp_path / "shard", "tar", kept)),
        "url": Place.of("memory://places-test"),
    }
    memory.rm("memory://places-test", recursive=True)


def test_images_are_listed_in_the_order_of_their_paths_wherever_they_lie(places):
    for place in places.values():
        listed = list(place.listed(SUFFIXES))
        assert [each.path.removeprefix("./") for each in listed] == sorted(NAMES), place
        assert all(each.size > 50 and each.version for each in listed), place


def test_a_version_changes_with_the_file(places, folder):
    place = Place.of(str(folder))
    before = {each.path: each for each in place.listed(SUFFIXES)}
    Image.new("RGB", (9, 8), (1, 2, 3)).save(folder / "a.png")
    after = {each.path: each for each in place.listed(SUFFIXES)}
    assert {path for path in before if before[path] != after[path]} == {"a.png"}


def test_pixels_and_digests_are_those_of_the_file(places):
    for place in places.values():
        for path, _, _ in place.listed(SUFFIXES):
            ours, expected = place.image(path, 8), read_image(places["folder"].folder / path, 8)
            assert np.array_equal(ours.pixels, expected.pixels) and ours[1:] == expected[1:], place


def test_an_image_of_more_bits_is_read_by_its_range(tmp_path, places):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 60).save(tmp_path / "deep.png")
    channels = Channels((Range(0, 4095),))
    places["url"].write("deep.png", (tmp_path / "deep.png").read_bytes())
    ours, expected = places["url"].image("deep.png", 8, channels), read_image(tmp_path / "deep.png", 8, channels)
    assert np.array_equal(ours.pixels, expected.pixels) and ours[1:] == expected[1:]


def test_what_is_no_image_has_its_reason_wherever_it_lies(places):
    for place in (places["folder"], places["url"]):
        place.write("bad.png", b"no image")
        with pytest.raises(Unreadable, match="not an image"):
            place.image("bad.png", 8)
        with pytest.raises(Unreadable):
            place.image("missing.png", 8)
        assert place.has("bad.png") and not place.has("missing.png") and place.read("bad.png") == b"no image"


@pytest.mark.parametrize(
    ("url", "words"),
    [("s4://bucket", "Protocol not known: s4"), ("nowhere.zip", "cannot be reached"), ("nowhere", "cannot be listed")],
)
def test_a_place_that_is_none_is_said_in_a_sentence(url, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        list(Place.of(url).listed(SUFFIXES))
