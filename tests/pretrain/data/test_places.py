"""The same images from a folder, an archive and a URL: in one order, with the same pixels, or with the same reason."""

import copy
import http.server
import io
import shutil
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data import places as module
from pretrain.data.channels import Channels, read_image
from pretrain.data.decode import Unreadable
from pretrain.data.images import SUFFIXES
from pretrain.data.levels import Range
from pretrain.data.places import Place, in_order

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


def test_memory_does_not_grow_with_the_names_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NAMES_AT_ONCE", 1000)

    def peak(count: int) -> int:
        tracemalloc.start()
        entries = ((f"{number * 7919 % count:06d}\n\udcff.png", (number, "v")) for number in range(count))
        for number, (name, _) in enumerate(in_order(entries)):
            assert name == f"{number:06d}\n\udcff.png"  # a name may hold anything
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few = peak(1500)
    assert peak(6000) < 2 * few
    monkeypatch.setattr(module, "NAMES_AT_ONCE", 2)
    for number in range(7):
        (tmp_path / f"{number * 3 % 7}.png").touch()
    assert [row.path for row in Place.of(str(tmp_path)).listed(SUFFIXES)] == [f"{number}.png" for number in range(7)]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket", "Protocol not known: s4"),
        ("nowhere.zip", "cannot be reached"),
        ("nowhere", "cannot be listed"),
        ("ftp://me:geheim@127.0.0.1/day", r"ftp://me:\.\.\.@127.0.0.1/day holds a password"),
        ("zip://::http://me:geheim@127.0.0.1/day.zip", "holds a password"),
    ],
)
def test_a_place_that_is_none_is_said_in_a_sentence(url, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        list(Place.of(url).listed(SUFFIXES))


@pytest.fixture(params=["zip", "tar"])
def archive(request, tmp_path):
    """Many files of other bytes in an archive."""
    contents = {f"{number % 7}/{number}.png": bytes([number % 256]) * (9000 + number) for number in range(300)}
    file = tmp_path / f"many.{request.param}"
    with zipfile.ZipFile(file, "w") if request.param == "zip" else tarfile.open(file, "w") as archive:
        for name, data in contents.items():
            (tmp_path / "one").write_bytes(data)
            (archive.write if request.param == "zip" else archive.add)(tmp_path / "one", name)
    return contents, str(file)


def test_threads_read_an_archive_as_one_does(archive):
    contents, file = archive
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(3):
            place = Place.of(file)
            with ThreadPoolExecutor(max_workers=4) as pool:
                assert list(pool.map(place._image_bytes, contents)) == [*contents.values()]
    finally:
        sys.setswitchinterval(interval_s)
    assert copy.deepcopy(place).read("0/0.png") == contents["0/0.png"]  # as it goes to a worker


def test_of_a_damaged_archive_a_damaged_file_is_unreadable_and_others_are_not(tmp_path):
    for name in ("no.zip", "no.tar", "no.tgz"):
        (tmp_path / name).write_bytes(b"no archive at all" * 100)
        with pytest.raises(UserError, match="cannot be reached"):
            Place.of(str(tmp_path / name))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("bad.png", b"x" * 1000)
        file.writestr("good.png", b"z" * 1000)
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"x" * 1000, b"y" * 1000))
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        link = tarfile.TarInfo("bad.png")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        file.addfile(link)
        about = tarfile.TarInfo("good.png")
        about.size = 1000
        file.addfile(about, io.BytesIO(b"z" * 1000))
    for name in ("a.zip", "a.tar"):
        place = Place.of(str(tmp_path / name))
        with pytest.raises(Unreadable, match="cannot be read"):
            place.image("bad.png")
        with pytest.raises(Unreadable, match="is not there"):
            place.image("missing.png")
        assert place.read("good.png") == b"z" * 1000


class Refused(Exception):
    """As clients of services have them, of no common class."""


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), Refused("no credentials"), RuntimeError("closed")])
def test_what_a_store_refuses_ends_the_run_and_marks_no_image(error, places, monkeypatch):
    def refuse(*_, **__):
        raise error

    place = places["url"]
    for method in ("size", "cat_file", "ls"):
        with monkeypatch.context() as patched:
            patched.setattr(type(place.files), method, refuse)
            with pytest.raises(UserError):
                list(place.listed(SUFFIXES)) if method == "ls" else place.image("a.png")


def test_of_a_store_that_is_gone_no_image_is_marked(places):
    with pytest.raises(Unreadable):
        places["url"].image("missing.png")
    fsspec.filesystem("memory").rm("memory://places-test", recursive=True)
    with pytest.raises(UserError, match="not there any more"):
        places["url"].image("a.png")
    fsspec.filesystem("memory").pipe("memory://places-test/again", b"")  # for the fixture to remove


def test_where_no_size_is_told_no_more_is_read_than_is_accepted(places, monkeypatch):
    place = places["url"]
    whole = place.read("a.png")
    monkeypatch.setattr(type(place.files), "size", lambda *_: None)
    assert place._image_bytes("a.png") == whole
    monkeypatch.setattr(module, "MAX_BYTES", len(whole) - 1)
    with pytest.raises(Unreadable, match="it has more than"):
        place.image("a.png")


def test_a_server_without_an_image_is_not_one_that_is_down(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever).start()
        place = Place.of(f"http://127.0.0.1:{server.server_port}")
        assert place.image("a.png").pixels.shape == (8, 10, 3)
        with pytest.raises(Unreadable):
            place.image("missing.png")
        server.shutdown()
    with pytest.raises(UserError, match="not there any more"):
        place.image("a.png")
