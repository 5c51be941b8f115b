"""What blocks, never ends, or is too large or too deep is refused at once."""

import os

import pytest

from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.reading import parse_json, read_json, read_regular


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


@pytest.fixture(params=[pipe, endless, folder], ids=lambda make: make.__name__)
def irregular(request, tmp_path):
    path = tmp_path / "image.png"
    request.param(path)
    return path


def test_only_regular_files_are_read(irregular, tmp_path):
    with pytest.raises(OSError, match="no regular file|Is a directory"):
        read_regular(irregular)
    (tmp_path / "link.txt").symlink_to(tmp_path / "text.txt")
    (tmp_path / "text.txt").write_bytes(b"text")
    assert read_regular(tmp_path / "link.txt") == b"text"


def test_an_image_or_mask_that_is_no_file_is_unreadable(irregular):
    with pytest.raises(Unreadable, match="no regular file|Is a directory"):
        decode(irregular)
    # A folder may hold the several masks of an image; this one holds none.
    with pytest.raises(Unreadable, match="no regular file|Is a directory|the folder holds no mask"):
        read_mask(irregular)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than 4"):
        read_regular(tmp_path / "file", 4)
    os.truncate(tmp_path / "file", 2**42)  # sparse
    with pytest.raises(OSError, match="more than"):
        read_regular(tmp_path / "file")


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"[1]", b"{", b"\xff", b""])
def test_json_is_what_was_expected_or_a_value_error(text, tmp_path):
    (tmp_path / "file.json").write_bytes(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "file.json")
    assert parse_json(b'{"a": [1]}') == {"a": [1]} and parse_json("[1]", list) == [1]
