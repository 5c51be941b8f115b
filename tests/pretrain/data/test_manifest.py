"""A manifest says what lies below a place, and its parts stay what they are while images come and go."""

import os
import random
import tracemalloc

import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data import manifest
from pretrain.data.manifest import (
    Changes,
    count_rows,
    import_parquet,
    parts_of,
    place_of,
    read_rows,
    write_manifest,
)
from pretrain.data.places import Listed, Place


class Made(Place):
    """A place with so many names and no files."""

    def listed(self, suffixes):
        return (Listed(f"line/{number:08d}.png", 100, "v") for number in range(int(self.root)))


def made(count: int) -> Made:
    return Made("memory://made", None, str(count))


def rows(count: int) -> list[Listed]:
    return list(made(count).listed(frozenset()))


def test_a_manifest_is_brought_up_to_date(tmp_path):
    folder, file = tmp_path / "images", tmp_path / "manifest.parquet"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    assert write_manifest(Place.of(str(folder)), file) == Changes(3, 3, 0, 0)
    assert write_manifest(Place.of(str(folder)), file) == Changes(3, 0, 0, 0)
    (folder / "a.png").unlink()
    (folder / "c.png").unlink()
    Image.new("RGB", (8, 9)).save(folder / "b.png")
    Image.new("RGB", (8, 8)).save(folder / "bb.png")
    assert write_manifest(Place.of(str(folder)), file) == Changes(2, 1, 1, 2)
    assert list(read_rows(file)) == list(Place.of(str(folder)).listed(frozenset({".png"})))
    assert place_of(file).folder == folder and count_rows(file) == 2


def test_a_place_without_images_leaves_the_manifest_that_was(tmp_path):
    file = tmp_path / "manifest.parquet"
    write_manifest(made(5), file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image"):
        write_manifest(Place.of(str(tmp_path / "empty")), file)
    assert count_rows(file) == 5 and [*tmp_path.glob(".*")] == []


def test_parts_hold_every_row_once_in_order_and_are_of_the_size_asked():
    all_rows = rows(5000)
    parts = list(parts_of(all_rows, 20))
    assert [row for part in parts for row in part.rows] == all_rows
    sizes = [len(part.rows) for part in parts]
    assert 15 < sum(sizes) / len(sizes) < 30 and max(sizes) <= 80 and min(sizes[:-1]) >= 5
    assert len({part.digest for part in parts}) == len(parts)


def test_an_image_more_or_less_changes_one_part_or_two():
    draw, before = random.Random(0), rows(5000)
    known = {part.digest for part in parts_of(before, 20)}
    for _ in range(20):
        after, place = list(before), draw.randrange(5000)
        if draw.random() < 0.5:
            del after[place]
        else:
            after.insert(place, Listed(f"{before[place].path}x", 1, "new"))
        assert len({part.digest for part in parts_of(after, 20)} - known) <= 4
    changed = [*before[:100], before[100]._replace(version="w"), *before[101:]]
    assert len({part.digest for part in parts_of(changed, 20)} - known) == 1


def test_the_manifest_of_another_tool_needs_a_column_path_alone(tmp_path):
    import pyarrow

    file = tmp_path / "theirs.parquet"
    import_parquet().write_table(pyarrow.table({"path": ["a.png"], "label": [1]}), file)
    assert list(read_rows(file)) == [Listed("a.png", 0, "")] and place_of(file).folder == tmp_path
    import_parquet().write_table(pyarrow.table({"name": ["a.png"]}), file)
    with pytest.raises(UserError, match="no column path"):
        list(read_rows(file))
    file.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="damaged"):
        count_rows(file)
    with pytest.raises(UserError, match="heldout manifest makes one"):
        count_rows(tmp_path / "nowhere")


@pytest.mark.parametrize("path", [None, 7, "", "/etc/a.png", "day/../../a.png"])
def test_what_names_nothing_below_the_place_is_refused(path, tmp_path):
    import pyarrow

    file = tmp_path / "theirs.parquet"
    import_parquet().write_table(pyarrow.table({"path": [path]}), file)
    with pytest.raises(UserError, match="is no path below a folder"):
        list(read_rows(file))


def test_an_image_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="00000002.png is in the manifest twice"):
        list(parts_of([*rows(3), rows(3)[2]], 20))


def test_an_earlier_list_that_is_damaged_is_replaced(tmp_path):
    file = tmp_path / "manifest.parquet"
    write_manifest(made(500), file)
    data = bytearray(file.read_bytes())
    data[4:40] = bytes(36)
    for damaged in (b"PAR1 no", bytes(data)):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            list(read_rows(file))
        assert write_manifest(made(5), file) == Changes(5, 5, 0, 0) and count_rows(file) == 5


def test_a_name_that_is_no_text_is_said_in_a_sentence(tmp_path):
    (tmp_path / "images").mkdir()
    with open(os.fsencode(tmp_path / "images") + b"/\xff.png", "wb"):
        pass
    with pytest.raises(UserError, match="is not UTF-8"):
        write_manifest(Place.of(str(tmp_path / "images")), tmp_path / "manifest.parquet")
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Python's own, of which a row that is kept would take 200 bytes."""
    monkeypatch.setattr(manifest, "ROWS_AT_ONCE", 1000)

    def peak(count: int) -> int:
        tracemalloc.start()
        write_manifest(made(count), tmp_path / "manifest.parquet")
        assert sum(len(part.rows) for part in parts_of(read_rows(tmp_path / "manifest.parquet"), 128)) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few = peak(1000)
    assert peak(8000) < 1.5 * few
