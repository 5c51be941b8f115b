"""Folders as people have them: whole, partial, and wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data.images import Problem, Record, has_layout, same_content, scan, scan_plain, split_records

FRACTIONS = {"fit": 0.7, "validation": 0.15, "calibration": 0.15}


def image(path: Path, size: tuple[int, int] = (12, 10), level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 20, 20)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two categories; `nut` has masks, `lid` has none."""
    for category in ("nut", "lid"):
        for number in range(3):
            image(tmp_path / category / f"train/good/{number}.png")
        image(tmp_path / category / "test/good/0.png")
        image(tmp_path / category / "test/crack/0.png")
        image(tmp_path / category / "test/crack/1.jpg")
    for number in range(2):
        image(tmp_path / f"nut/ground_truth/crack/{number}_mask.png")
    return tmp_path


def test_records_say_what_each_image_is(folder):
    records = scan(folder).records
    assert len(records) == 12
    assert scan(folder).problems == ()
    nut = folder / "nut"
    assert Record(nut / "train/good/0.png", "nut", "train", "good") in records
    assert Record(nut / "test/crack/1.jpg", "nut", "test", "crack", nut / "ground_truth/crack/1_mask.png") in records
    assert Record(folder / "lid/test/crack/1.jpg", "lid", "test", "crack") in records
    assert [record.is_anomaly for record in records] == [record.defect == "crack" for record in records]


def test_order_depends_on_names_alone(folder):
    before = scan(folder).records
    again = folder / "nut/train/good/0.png"
    content = again.read_bytes()
    again.unlink()
    again.write_bytes(content)
    assert scan(folder).records == before == tuple(sorted(before, key=lambda r: (r.category, -len(r.split), r.path)))


def test_some_categories_only(folder):
    assert {record.category for record in scan(folder, ["lid"]).records} == {"lid"}


def test_unknown_category_names_the_nearest(folder):
    with pytest.raises(UserError, match=r"no category in .* named 'nutt'; did you mean nut\?"):
        scan(folder, ["nutt"])


def test_normals_only_opens_nothing_else(folder):
    (folder / "nut/ground_truth/crack/0_mask.png").write_bytes(b"broken")
    image(folder / "nut/train/dirty/0.png")
    found = scan(folder, normals_only=True)
    assert {(record.split, record.defect) for record in found.records} == {("train", "good")}
    assert len(found.records) == 6
    assert found.problems == ()


def test_a_folder_that_is_one_category(folder):
    records = scan(folder / "nut").records
    assert len(records) == 6
    assert {record.category for record in records} == {"nut"}


def test_only_train_good_is_enough(tmp_path):
    image(tmp_path / "mine/train/good/a.TIFF")
    assert len(scan(tmp_path).records) == 1


def test_hidden_and_foreign_files_are_left_alone(folder):
    for name in ("._0.png", ".DS_Store", "notes.txt", "Thumbs.db"):
        (folder / "nut/train/good" / name).write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / "papers").mkdir()
    assert len(scan(folder).records) == 12
    assert scan(folder).problems == ()


@pytest.mark.parametrize("name", ["0.png", "0_mask.tif", "0.bmp"])
def test_masks_may_be_named_like_their_image(name, tmp_path):
    image(tmp_path / "nut/test/hole/0.jpg")
    mask = image(tmp_path / f"nut/ground_truth/hole/{name}")
    assert [record.mask for record in scan(tmp_path).records] == [mask]


def test_masks_that_belong_to_nothing_are_named(folder):
    cracks = folder / "nut/ground_truth/crack"
    stray = image(cracks / "7_mask.png")
    second = image(cracks / "0.png")
    of_good = image(folder / "nut/ground_truth/good/0_mask.png")
    of_no_kind = image(folder / "nut/ground_truth/hole/0_mask.png")
    found = scan(folder)
    assert sorted(found.problems) == sorted(
        [
            Problem(stray, "a mask without its image"),
            Problem(cracks / "0_mask.png", "a second mask of the image that 0.png belongs to"),
            Problem(of_good, "a mask of a good image"),
            Problem(of_no_kind, "a mask without its image"),
        ]
    )
    assert second in {record.mask for record in found.records}


def test_images_outside_any_defect_folder_are_named(folder):
    loose = image(folder / "nut/train/0.png")
    (problem,) = scan(folder).problems
    assert problem.path == loose
    assert "train/good" in problem.reason


def test_nothing_to_list_is_said_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="there is no folder .*--data"):
        scan(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no category in .*CATEGORY/train/good"):
        scan(tmp_path)
    (tmp_path / "nut/train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="no images in"):
        scan(tmp_path)
    image(tmp_path / "file.png")
    with pytest.raises(UserError, match="is a file"):
        scan(tmp_path / "file.png")


def records_and_digests(count: int = 200) -> tuple[list[Record], list[bytes]]:
    kinds = [("nut", "good"), ("nut", "crack"), ("lid", "good"), ("lid", "hole")]
    records = [Record(Path(f"{i}.png"), kinds[i % 4][0], "test", kinds[i % 4][1]) for i in range(count)]
    return records, [str(i).encode() for i in range(count)]


def test_split_is_disjoint_complete_and_stratified():
    records, digests = records_and_digests()
    parts = split_records(records, digests, digests, FRACTIONS, seed=0)
    assert sorted(sum(parts.values(), [])) == list(range(200))
    for part, fraction in FRACTIONS.items():
        for kind in range(4):
            members = [i for i in parts[part] if i % 4 == kind]
            assert abs(len(members) - 50 * fraction) <= 1


def test_split_depends_on_content_and_seed_not_on_order():
    records, digests = records_and_digests()
    order = np.random.default_rng(0).permutation(200)
    straight = split_records(records, digests, digests, FRACTIONS, seed=3)
    shuffled = split_records(*([part[i] for i in order] for part in (records, digests, digests)), FRACTIONS, seed=3)
    assert {part: sorted(order[members]) for part, members in shuffled.items()} == straight
    assert split_records(records, digests, digests, FRACTIONS, seed=4) != straight


def test_copies_never_fall_on_two_sides_whatever_they_are_called():
    records, digests = records_and_digests()
    digests = [str(i // 8).encode() for i in range(200)]  # eight copies each, of all four kinds
    parts = split_records(records, digests, digests, FRACTIONS, seed=0)
    sides = [{digests[i] for i in members} for members in parts.values()]
    assert sum(map(len, sides)) == len(set(digests))
    assert sorted(sum(parts.values(), [])) == list(range(200))


def test_split_follows_the_files_not_the_cache():
    records, files = records_and_digests()
    cached_small, cached_large = ([f"{size}-{i}".encode() for i in range(200)] for size in (16, 32))
    small = split_records(records, cached_small, files, FRACTIONS, seed=0)
    assert split_records(records, cached_large, files, FRACTIONS, seed=0) == small


def test_split_of_few_images_gives_to_the_first_part():
    records, digests = records_and_digests(4)
    assert split_records(records, digests, digests, FRACTIONS, seed=0)["fit"] == [0, 1, 2, 3]


def test_same_content_lists_groups():
    assert same_content(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]


def test_any_folder_will_do_where_labels_are_not_needed(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.png", "deep/er/c.bmp", "other/d.webp", ".hidden/e.png", "notes.txt"):
        image(folder / name) if not name.endswith("txt") else (folder / name).write_text("no image")
    records = scan_plain(folder).records
    assert [(record.path.name, record.category) for record in records] == [
        ("a.png", "photos"), ("b.jpg", "photos"), ("c.bmp", "deep/er"), ("d.webp", "other"),
    ]  # fmt: skip
    assert not any(record.is_anomaly or record.split for record in records)
    assert [record.path.name for record in scan_plain(folder, ["other"]).records] == ["d.webp"]
    with pytest.raises(UserError, match="did you mean other"):
        scan_plain(folder, ["othr"])
    with pytest.raises(UserError, match="there is no folder"):
        scan_plain(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in"):
        scan_plain(tmp_path / "empty")


def test_a_layout_is_known_by_its_splits(folder):
    assert has_layout(folder) and has_layout(folder / "nut")
    assert not has_layout(folder / "nut/train")
