"""What an inspector says of an image, however it was given, in words, as JSON and as a drawing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heldout
from downstream.inspection.zones import ZoneResult
from pretrain.command import UserError
from pretrain.data.decode import decode


@pytest.fixture(scope="module")
def inspector(padim_folder):
    return heldout.load(padim_folder, "cpu")


@pytest.fixture
def files(blotched) -> list[Path]:
    return sorted(blotched.iterdir())


def test_an_array_is_judged_as_its_file(inspector, files):
    (_, from_file) = inspector.inspect(files)
    alone, (good, bad) = inspector.predict(files[1]), inspector.predict(files[0].parent)
    arrays = inspector.predict([decode(file).pixels / 255 for file in files])
    for found in (alone, bad, arrays[1]):
        assert found.score == pytest.approx(from_file.score, rel=1e-6) and found.is_defective
        assert [region.box for region in found.regions] == [region.box for region in from_file.regions] != []
        assert (found.width, found.height) == (from_file.width, from_file.height)
    assert bad.distance == pytest.approx(from_file.distance, rel=1e-6) and bad.distance > good.distance > 0
    assert not good.is_defective and (bad.path, arrays[1].path) == (files[1], Path("image 1"))
    assert inspector.predict([]) == []


def test_the_drawing_and_the_words_are_those_of_the_verdict(inspector, files, tmp_path):
    pixels = decode(files[1]).pixels
    from_file, from_array = inspector.predict(files[1]), inspector.predict(pixels)
    assert from_file.verdict.startswith("DEFECTIVE: ") and from_file.verdict.endswith("times the threshold")
    drawing = from_array.overlay()
    assert isinstance(drawing, Image.Image) and drawing.width > drawing.height
    assert np.array_equal(np.asarray(drawing), np.asarray(from_file.overlay()))
    mask = np.zeros(pixels.shape[:2], bool)
    mask[60:110, 100:140] = True
    assert not np.array_equal(np.asarray(from_array.overlay(mask)), np.asarray(drawing))


def test_json_has_all_but_the_images(inspector, files):
    found = inspector.predict(decode(files[1]).pixels)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["is_defective"] and told["path"] == "image 0" and len(told["regions"]) == len(found.regions) > 0
    assert "given" not in told and "anomaly_map" not in told


def test_zones_that_make_it_defective_are_named(inspector, files):
    found = inspector.predict(files[0])
    zones = [ZoneResult("thread", 1.2, 1.0, True), ZoneResult("head", 0.4, 1.0, False)]
    assert type(found)(**{**vars(found), "zones": zones}).verdict.endswith("times the threshold\nin thread")


def test_what_is_no_image_is_one_sentence(inspector, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="cut.png"):
        inspector.predict(tmp_path / "cut.png")
    with pytest.raises(UserError, match="shape .* is no image"):
        inspector.predict(np.zeros((3, 4, 5, 6, 7)))
