"""Real-IAD: a JSON list a category."""

import json

import pytest
from made_layouts import images, realiad

from pretrain.command import UserError
from pretrain.data.layouts import scan


def test_the_list_says_everything_and_the_largest_images_are_taken(tmp_path):
    realiad(tmp_path)
    found = scan(tmp_path)
    assert [(record.path.name, record.category, record.split, record.defect) for record in found.records] == [
        ("toy_C1.jpg", "toy", "train", "good"), ("toy_C2.jpg", "toy", "train", "good"),
        ("toy_C1.jpg", "toy", "test", "good"), ("toy_C1.jpg", "toy", "test", "AK"),
    ]  # fmt: skip
    assert found.records[3].mask == tmp_path / "realiad_256/toy/NG/AK/S3/toy_C1.png"
    images(tmp_path / "realiad_1024/toy", "OK/S1/toy_C1.jpg")
    larger = scan(tmp_path)
    assert [record.path.parts[-5] for record in larger.records] == ["realiad_1024"]
    assert [problem.reason for problem in larger.problems] == ["is named in toy.json, but is not there"] * 4


def test_a_mask_that_is_gone_is_named_and_its_image_kept(tmp_path):
    realiad(tmp_path)
    gone = tmp_path / "realiad_256/toy/NG/AK/S3/toy_C1.png"
    gone.unlink()
    found = scan(tmp_path)
    assert found.records[3].is_anomaly and found.records[3].mask is None
    assert [problem.path for problem in found.problems] == [gone]


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"meta": {"normal_class": "OK"}, "train": [{}]})])
def test_a_list_that_is_none_is_refused(text, tmp_path):
    realiad(tmp_path)
    (tmp_path / "realiad_jsons/toy.json").write_text(text)
    with pytest.raises(UserError, match=r"toy\.json is no list of Real-IAD's .*: fetch it again\.$"):
        scan(tmp_path)
