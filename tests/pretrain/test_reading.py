"""What blocks, never ends, or is too large or too deep is refused at once."""

import os
import re
from contextlib import nullcontext

import pytest
from conftest import REPOSITORY

from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.reading import (
    MAX_DEPTH,
    MAX_YAML_BYTES,
    lines_of,
    parse_json,
    parse_yaml,
    read_json,
    read_regular,
    read_yaml,
)


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


def test_lines_are_those_of_a_regular_file_and_of_bounded_length(irregular, tmp_path):
    with pytest.raises(OSError, match="no regular file|Is a directory"):
        next(lines_of(irregular))
    (tmp_path / "lines").write_bytes(b"one\n\nand two\nlast")
    assert list(lines_of(tmp_path / "lines", 8)) == [b"one\n", b"\n", b"and two\n", b"last"]
    with pytest.raises(OSError, match="a line of it has more than 7 bytes"):
        list(lines_of(tmp_path / "lines", 7))


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


def test_depth_is_bounded_far_below_what_a_later_reader_could_not_walk():
    for start, end in ((b"[", b"]"), (b'{"a":', b"}")):
        parse_json(start * MAX_DEPTH + b"1" + end * MAX_DEPTH, object)
        with pytest.raises(ValueError, match="nested too deep"):
            parse_json(start * (MAX_DEPTH + 1) + b"1" + end * (MAX_DEPTH + 1), object)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"files": {"a": 1}, "more": null}', None),
        ('{"files": {"a": 1.0}, "rate": 1}', None),
        ('{"files": {"a": 1}, "rate": null}', None),
        ('{"rate": 1}', "it lacks files"),
        ('{"files": [1]}', r"its files is \[1\]"),
        ('{"files": {"a": "1"}}', "its files is"),
        ('{"files": {"a": true}}', "its files is"),
        ('{"files": {}, "rate": "1"}', "its rate is '1'"),
        ("[]", "its JSON is no dict"),
    ],
)
def test_fields_have_the_types_that_were_declared(text, said):
    schema = {"files": dict[str, float], "rate": int | None}
    with pytest.raises(ValueError, match=said) if said else nullcontext():
        assert parse_json(text, schema)["files"] == {"a": 1}


NESTED_ALIASES = b"a: &a [x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9)) for letter in b"bcdefghi"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 200_000, "nested too deep"),
        (b"a: &a [*a]", "has aliases"),
        (NESTED_ALIASES, "has aliases"),
        (b"a: 2001-99-99", "month"),
        (b"\xff\xfe", ""),
        (b"!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"- 1", "its YAML is no dict"),
        (b"a: " + b"1" * MAX_YAML_BYTES, "more than"),
        (b"a: !!timestamp x", "none of its type"),
        (b"a: !!bool x", "none of its type"),
        (b"a: !!int ''", "none of its type"),
        (b"a: 1" + b":00" * 300 + b".5", "none of its type"),
    ],
)
def test_yaml_is_plain_or_refused(text, said, tmp_path):
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises((ValueError, OSError), match=said):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)
    assert parse_yaml("a: [1, b]") == {"a": [1, "b"]}
    assert parse_yaml("a: &a [1, b]\nc: *a") == {"a": [1, "b"], "c": [1, "b"]}  # as of stations that are alike


def test_nothing_else_reads_json_or_yaml():
    """Of files that somebody may have damaged. What remains is of this process, or of its own database."""
    found = {
        f"{path.relative_to(REPOSITORY)} {call}"
        for package in ("pretrain", "embeddings", "baselines", "downstream")
        for path in (REPOSITORY / package).rglob("*.py")
        for call in re.findall(r"(?:json\.loads?|yaml\.(?:safe_)?load)\(\w*", path.read_text())
    }
    assert found == {
        "pretrain/reading.py json.loads(text",
        "pretrain/reading.py yaml.safe_load(text",
        "pretrain/files.py json.loads(json",
        "downstream/service/app.py json.loads(os",
        "downstream/service/openapi.py json.loads(Path",
        "downstream/service/routes_roi.py json.loads(json",
    }
