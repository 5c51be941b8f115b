"""Alignment: known turns and shifts are found and undone, and what cannot be aligned is said to be so."""

import json
import re

import numpy as np
import pytest
from fitted_models import SMALL, run_area, run_detect
from PIL import Image
from sklearn.metrics import roc_auc_score

from downstream.inspection.alignment import Alignment, Pose, as_answered, fit_alignment
from pretrain.command import UserError
from pretrain.data.decode import decode
from pretrain.demo import make

SIDE_PX = 256
UPRIGHT = Pose(0.0, (0.0, 0.0), 1.0, True)


def moved(pixels: np.ndarray, turn: float, shift: tuple[float, float]) -> np.ndarray:
    """An image whose product is turned clockwise about the middle by degrees, and then moved by pixels (x, y)."""
    fill = tuple(int(value) for value in np.median(pixels[0], 0))
    image = Image.fromarray(pixels).rotate(-turn, Image.Resampling.BICUBIC, fillcolor=fill)
    return np.asarray(image.rotate(0, translate=shift, fillcolor=fill))


def poses(count: int, seed: int) -> list[tuple[float, tuple[int, int]]]:
    rng = np.random.default_rng(seed)
    return [(float(rng.uniform(-15, 15)), tuple(rng.integers(-14, 15, 2).tolist())) for _ in range(count)]


@pytest.fixture(scope="module")
def nuts(make_once):
    """Metal nuts of the demo, which all lie alike: a folder."""
    products = ("metal_nut",)
    return make_once("nuts", lambda folder: make(folder, seed=0, categories=products, train=9, good=5, defective=2))


@pytest.fixture(scope="module")
def upright(nuts) -> list[np.ndarray]:
    return [decode(path).pixels for path in sorted((nuts / "metal_nut" / "train" / "good").iterdir())[:6]]


@pytest.fixture(scope="module")
def jittered(nuts, tmp_path_factory):
    """A copy of the folder in which each product is turned and moved."""
    folder = tmp_path_factory.mktemp("jittered")
    for number, path in enumerate(sorted(nuts.rglob("*.png"))):
        if "ground_truth" not in path.parts:
            target = folder / path.relative_to(nuts)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(moved(decode(path).pixels, *poses(1, number)[0])).save(target)
    return folder


def test_known_turns_and_shifts_are_found(upright):
    alignment, _ = fit_alignment(upright, 1.0, upright[0])
    own = alignment.find(upright[5])  # products of a set do not lie exactly alike
    for turn, shift in [*poses(2, 1), (3.0, (-20, 9))]:
        image = moved(upright[5], turn, shift)
        found = Alignment(alignment.reference, 1.0).find(image)
        answered = as_answered(found, SIDE_PX, SIDE_PX)
        assert answered.turn_degrees - own.turn == pytest.approx(turn, abs=0.5)
        expected = moved_point(own, turn, shift)
        assert answered.shift_px == pytest.approx(expected, abs=1)


def moved_point(own: Pose, turn: float, shift: tuple[float, float]) -> list[float]:
    """Where the middle of the reference lies, as far from the image's middle, once the image is moved."""
    x, y = (share * SIDE_PX for share in own.shift)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return [c * x - s * y + shift[0], s * x + c * y + shift[1]]


def test_an_aligned_image_lies_as_the_reference_and_its_map_goes_back(upright):
    alignment = Alignment(fit_alignment(upright, 1.0)[0].reference, 1.0)
    for turn, shift in poses(2, 2):
        image = moved(upright[3], turn, shift)
        middle = slice(48, -48)
        before, after = (
            np.abs(each.astype(float) - alignment.aligned(upright[3], alignment.find(upright[3])))[
                middle, middle
            ].mean()
            for each in (image, alignment.aligned(image, alignment.find(image)))
        )
        assert after < 0.35 * before
    # A point of the map lies where it lies in the image: at `spot`, whatever the turn.
    image = image.copy()
    y, x = 150, 110
    image[y - 3 : y + 4, x - 3 : x + 4] = (255, 0, 255)
    pose = alignment.find(image)
    aligned = alignment.aligned(image, pose).astype(np.float32)
    heat = np.maximum(aligned[..., 0], aligned[..., 2]) - aligned[..., 1]
    back = alignment.moved_back(heat, pose)
    assert np.abs(np.subtract(np.unravel_index(back.argmax(), back.shape), (y, x))).max() <= 4
    labels = np.zeros(back.shape, np.uint8)
    labels[heat > 150] = 3
    assert set(np.unique(alignment.moved_back(labels, pose))) == {0, 3}


def test_an_image_that_is_stretched_is_turned_as_it_was_on_disk(upright):
    """On disk 256 x 128, seen as squares of 128 px: a turn there is no pure turn here."""
    wide = [np.asarray(Image.fromarray(image).crop((0, 64, 256, 192))) for image in upright]
    alignment = Alignment(fit_alignment(wide, 2.0, wide[0])[0].reference, 2.0)
    image = moved(wide[0], 8, (10, -4))
    seen = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BOX))
    straight = np.asarray(Image.fromarray(wide[0]).resize((128, 128), Image.Resampling.BOX))
    found, own = as_answered(alignment.find(seen), 128, 256), alignment.find(straight)
    assert found.turn_degrees - own.turn == pytest.approx(8, abs=0.5)
    assert found.shift_px == pytest.approx(moved_point(own, 8, (10, -4)), abs=1)
    errors = [
        np.abs(each.astype(float) - straight)[30:-30, 30:-30].mean()
        for each in (alignment.aligned(seen, alignment.find(seen)), seen)
    ]
    assert errors[0] < 0.35 * errors[1]


def test_what_lies_as_no_good_image_or_shows_something_else_is_judged_as_it_lies(upright):
    rng = np.random.default_rng(0)
    steady = [moved(upright[0], float(rng.uniform(-2, 2)), tuple(rng.integers(-4, 5, 2).tolist())) for _ in range(6)]
    alignment, found = fit_alignment(steady, 1.0)
    assert alignment.max_turn < 7 and alignment.max_shift < 0.1 and all(pose.is_aligned for pose in found)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 90), moved(upright[0], 25, (0, 0)), moved(upright[0], 0, (70, 0))):
        pose = alignment.find(image)
        assert not pose.is_aligned
        assert alignment.aligned(image, pose) is image and alignment.moved_back(image[..., 0], pose) is not None
    assert alignment.find(moved(upright[0], 1.5, (3, -3))).is_aligned


def test_images_with_nothing_in_common_are_a_mistake():
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="nothing in common to align them by"):
        fit_alignment(noise, 1.0)


def test_it_is_kept_as_it_is_and_damage_is_noticed(upright):
    alignment, _ = fit_alignment(upright[:3], 1.0)
    stored = json.loads(json.dumps(alignment.as_json()))
    again = Alignment.from_json(stored)
    assert again.find(upright[4]) == alignment.find(upright[4])
    wrong = [{**stored, "aspect": 2.0}, {**stored, "max_turn": "5"}, {**stored, "aspect": 0}, {**stored, "more": 1},
             {**stored, "reference": "!"}, {**stored, "reference": stored["reference"][:200]}, {}]  # fmt: skip
    for damaged in wrong:
        with pytest.raises((ValueError, TypeError, OSError)):
            Alignment.from_json(damaged)


def fitted_and_run(data, model, *more) -> list[dict]:
    """The lines of results.jsonl of PaDiM, fitted to a folder and run on its test images by the commands."""
    small = ("--method", "padim", "--category", "metal_nut", *SMALL)
    assert run_detect("fit", "--data", data, "--out", model, *small, *more) == 0
    run_detect("run", data / "metal_nut", "--model", model, "--out", model / "out", "--overlays", "none")
    return [json.loads(line) for line in (model / "out" / "results.jsonl").read_text().splitlines()]


def auroc(lines: list[dict]) -> float:
    return roc_auc_score([line["label"] != "good" for line in lines], [line["score"] for line in lines])


def test_padim_gets_back_what_turned_and_moved_products_cost(nuts, jittered, tmp_path, capsys):
    as_drawn = fitted_and_run(nuts, tmp_path / "as drawn", "--align")
    blurred, aligned = (
        fitted_and_run(jittered, tmp_path / "blurred"),
        fitted_and_run(jittered, tmp_path / "aligned", "--align"),
    )
    assert "aligned: good images lie turned by up to" in capsys.readouterr().out
    assert "alignment" not in blurred[0]
    assert sum(line["alignment"]["is_aligned"] for line in aligned) >= len(aligned) - 1  # it lies as no good one does
    assert auroc(aligned) >= auroc(as_drawn) - 0.05 and auroc(aligned) >= auroc(blurred) + 0.1
    assert run_area("validate", "--model", tmp_path / "aligned", "--data", jittered, "--area", 9) == 2
    assert "aligns images, which area.py does not" in capsys.readouterr().err


def test_options_that_do_not_go_together(nuts, tmp_path, capsys):
    for options, words in (
        (("--reference", "x.png"), "add --align"),
        (("--align", "--roi", "roi.json"), "name by --reference the image it is drawn on"),
        (("--align", "--reference", tmp_path / "none.png"), "the reference .* cannot be used"),
    ):
        assert run_detect("fit", "--data", nuts, "--method", "mean", "--size-px", 64, *options) == 2
        assert re.search(words, capsys.readouterr().err)
