"""What a camera gives beyond 8 bits of color, from `fit` to a verdict: values in a range, and lights of one part."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_models import SMALL, run_area, run_detect, run_export
from PIL import Image
from serving_here import serving_here

import heldout
from downstream.inspection.inspector import Inspector
from downstream.methods.padim import PaDiM
from downstream.service.decoding import RefusedImage
from downstream.service.models import Models
from downstream.service.routing import Product, nearest_product
from downstream.stations.contract import Frame
from downstream.stations.frames import Unreadable, opened
from pretrain.command import UserError
from pretrain.data.channels import PLAIN, read_image
from pretrain.data.decode import Decoded

GOOD, DEFECT = 8, slice(24, 36)
RATE = ("--false-alarm-rate", "0.05")


def surface(seed: int, is_defective: bool = False) -> np.ndarray:
    """12 bits in 16, most of them never used: shifted by 8 bits all of it is one gray."""
    waves = 40 * np.sin(np.arange(64) / 6)
    levels = 2150 + waves + waves[:, None] + np.random.default_rng(seed).normal(0, 2, (64, 64))
    levels[DEFECT, DEFECT] += 40 if is_defective else 0
    assert (levels.astype(int) >> 8 == 8).all()
    return levels.astype(np.uint16)


def save_part(folder: Path, name: str, seed: int, is_defective: bool = False, suffix: str = ".png") -> Path:
    """Two lights; a defect shows in the second."""
    folder.mkdir(exist_ok=True)
    shades = np.random.default_rng(1000 + seed).normal(120, 6, (64, 64)).astype(np.uint8)
    lights = [Image.fromarray(shades), Image.fromarray(surface(seed, is_defective))]
    if suffix == ".tif":
        lights[0].save(folder / f"{name}.tif", save_all=True, append_images=lights[1:])
        return folder / f"{name}.tif"
    for number, light in enumerate(lights, 1):
        light.save(folder / f"{name}_light{number}{suffix}")
    return folder / f"{name}_light1{suffix}"


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """Good images of 16 bits in a folder of their own, and what a model is fitted to them."""
    folder = tmp_path_factory.mktemp("deep")
    (folder / "good").mkdir()
    for number in range(GOOD):
        Image.fromarray(surface(number)).save(folder / "good" / f"{number}.png")
    for name, is_defective in (("fine", False), ("bad", True)):
        Image.fromarray(surface(100, is_defective)).save(folder / f"{name}.png")
    Image.fromarray(surface(100).astype(np.uint8)).save(folder / "eight.png")
    assert run_detect("fit", "--data", folder / "good", "--out", folder / "model", *RATE, *SMALL) == 0
    return folder


@pytest.fixture(scope="module")
def lights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lights")
    for number in range(GOOD):
        save_part(folder / "good", str(number), number)
    for name, is_defective in (("fine", False), ("bad", True)):
        save_part(folder / "new", name, 100, is_defective)
    data = ("--data", folder / "good", "--lights", "--method", "padim")
    assert run_detect("fit", *data, "--out", folder / "model", *RATE, *SMALL) == 0
    return folder


def test_a_defect_in_the_low_bits_is_found_by_the_range(deep, tmp_path, capsys):
    run = ("--model", deep / "model", "--out", tmp_path / "out")
    assert run_detect("run", deep / "fine.png", *run) == 0
    assert run_detect("run", deep / "bad.png", *run) == 1
    (line,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    left, top, right, bottom = line["regions"][0]["box"]
    assert left < 30 < right and top < 30 < bottom and line["image"] == "00001-bad.png"
    capsys.readouterr()
    blind = ("--data", deep / "good", "--range", "0,65535", "--out", tmp_path / "blind")
    assert run_detect("fit", *blind, *RATE, *SMALL) == 0
    assert "images of values from 0 to 65535" in capsys.readouterr().out
    assert run_detect("run", deep / "bad.png", "--model", tmp_path / "blind", "--out", tmp_path / "out") == 0


def test_in_python_arrays_are_what_files_are(deep):
    inspector = heldout.load(deep / "model")
    expected = inspector.predict(deep / "bad.png")
    levels = surface(100, True)
    for form in (levels, levels.astype(np.float64), levels[None], Image.open(deep / "bad.png")):
        found = inspector.predict(form)
        assert found.score == expected.score and found.is_defective
    drawn = np.asarray(found.overlay().convert("L"))
    assert np.ptp(drawn[40:200, 40:200]) > 100  # without the range, one gray
    assert "channels" not in found.to_dict()
    for form in (np.zeros((64, 64), np.uint8), [np.zeros((64, 64, 3), np.uint8)]):
        with pytest.raises(UserError, match="has 8 bits a channel, where values from"):
            inspector.predict(form)


def test_an_image_of_8_bits_is_a_problem_of_its_own(deep, tmp_path, capsys):
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(tmp_path / "plain.png")
    images = (tmp_path / "plain.png", deep / "fine.png")
    assert run_detect("run", *images, "--model", deep / "model", "--out", tmp_path / "out") == 3
    assert "plain.png: has 8 bits a channel, where values from" in capsys.readouterr().err


def test_area_sees_the_values_in_their_range(deep, capsys):
    validate = ("--model", deep / "model", "--data", deep / "good", "--area", "9")
    assert run_area("validate", *validate) == 2
    assert "learned from all 8 good images" in capsys.readouterr().err  # as their pixels say


@pytest.mark.slow
def test_an_exported_file_reads_the_range(deep, tmp_path, capsys):
    file = tmp_path / "deep.onnx"
    assert run_export(deep / "model", "--out", file) == 0
    assert "to the 8 bits that the graph sees" in capsys.readouterr().out
    assert run_detect("run", deep / "bad.png", "--model", file, "--out", tmp_path / "out") == 1
    assert run_detect("run", deep / "fine.png", "--model", file, "--out", tmp_path / "out") == 0


def test_a_defect_in_the_second_light_is_found(lights, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_detect("run", lights / "new", "--model", lights / "model", "--out", out, "--overlays", "all") == 1
    bad, fine = map(json.loads, (out / "results.jsonl").read_text().splitlines())  # a line is a part
    assert bad["is_defective"] and Path(bad["path"]).name == "bad_light1.png" and not fine["is_defective"]
    left, top, right, bottom = bad["regions"][0]["box"]
    assert left < 30 < right and top < 30 < bottom
    # Of the first light alone the two parts are one and the same.
    first = tmp_path / "first"
    first.mkdir()
    for path in (lights / "good").glob("*_light1.png"):
        (first / path.name).write_bytes(path.read_bytes())
    assert run_detect("fit", "--data", first, "--out", tmp_path / "model", *RATE, *SMALL) == 0
    assert run_detect("run", lights / "new" / "bad_light1.png", "--model", tmp_path / "model", "--out", out) == 0


def test_pages_arrays_and_files_of_a_part_are_the_same(lights, tmp_path):
    inspector = heldout.load(lights / "model")
    expected = inspector.predict(lights / "new" / "bad_light1.png")
    stack = save_part(tmp_path, "bad", 100, True, ".tif")
    first, second = (np.asarray(Image.open(lights / "new" / f"bad_light{number}.png")) for number in (1, 2))
    for form in (stack, lights / "new" / "bad_light2.png", (first, second), (first / 255, second)):
        assert inspector.predict(form).score == expected.score
    assert [each.score for each in inspector.predict([(first, second), stack])] == pytest.approx([expected.score] * 2)
    bad, fine = inspector.predict(lights / "new")
    assert bad.is_defective and not fine.is_defective and bad.overlay().width > 100
    with pytest.raises(UserError, match="has 1 lights, where 2 are expected"):
        inspector.predict(first)
    with pytest.raises(UserError, match="has 3 lights, where 2 are expected"):
        inspector.predict((first, second, second))


def test_more_bits_than_a_model_sees_are_not_cut_off_in_silence(padim_folder, deep, tmp_path, capsys):
    run_detect("run", deep / "fine.png", "--model", padim_folder, "--out", tmp_path / "out")
    assert "fine.png has more than 8 bits a channel, of which this model sees the highest 8" in capsys.readouterr().out
    for image, model in ((deep / "fine.png", deep / "model"), (deep / "eight.png", padim_folder)):
        run_detect("run", image, "--model", model, "--out", tmp_path / "out")
        assert "more than 8 bits" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lights_that_nobody_asked_for_are_not_left_out_in_silence(suffix, tmp_path, capsys):
    for number in range(2):
        save_part(tmp_path / "good", str(number), number, suffix=suffix)
    mean = ("--method", "mean", "--size-px", 64, "--device", "cpu", "--out", tmp_path / "model")
    assert run_detect("fit", "--data", tmp_path / "good", *mean) == 0
    of_files = "0_light1.png and 0_light2.png are taken as an image each: --lights takes them as one part"
    of_pages = "0.tif holds 2 pages, and the first alone is seen: --lights sees each"
    assert (of_files if suffix == ".png" else of_pages) in capsys.readouterr().out


def test_parts_of_other_lights_are_problems_in_a_sentence(lights, tmp_path, capsys):
    for name in ("a_light1.png", "b.png"):
        Image.fromarray(surface(0).astype(np.uint8)).save(tmp_path / name)
    assert run_detect("run", tmp_path, "--model", lights / "model", "--out", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert "a_light1.png: light 2, a_light2.png: No such file" in said
    assert "b.png: has 1 page, where 2 lights are expected" in said


@pytest.mark.parametrize("option", [("--align",), ("--train", "others"), ("--allow-contamination", "0.1")])
def test_what_sees_one_image_alone_refuses_lights(option, lights, tmp_path, capsys):
    assert run_detect("fit", "--data", lights / "good", "--lights", *option, "--out", tmp_path, *SMALL) == 2
    assert f"which {option[0]} does not yet" in capsys.readouterr().err


def test_the_service_judges_by_a_range_and_keeps_the_file(deep, tmp_path):
    with serving_here(deep, tmp_path, model="model") as serving:
        fine, bad = (serving.test((deep / name).read_bytes(), name, keep=True) for name in ("fine.png", "bad.png"))
        eight_bits = serving.test((deep / "eight.png").read_bytes(), "eight.png")
    assert not fine.json()["is_defective"] and bad.json()["is_defective"]
    expected = Inspector.load(deep / "model").predict(deep / "bad.png")
    assert bad.json()["anomaly_score"] == pytest.approx(expected.score, rel=1e-5)
    assert eight_bits.status_code == 422 and "has 8 bits a channel, where values from" in eight_bits.json()["detail"]
    assert len([*(tmp_path / "images").glob("*.png")]) == 2


def test_an_image_of_8_bits_is_none_of_a_product_with_more(deep):
    inspector = Inspector.load(deep / "model")
    method = PaDiM(encoder="random", architecture="timm/test_resnet", grid=8).fit([]).refer([torch.rand(3, 64, 64)] * 5)
    products = [Product("deep", 64, inspector.channels, method, 1.0), Product("plain", 64, PLAIN, method, 1e9)]
    plain = Decoded(np.zeros((64, 64, 3), np.uint8), 64, 64)
    assert nearest_product(products, {(64, PLAIN): plain}) == "plain"
    with pytest.raises(RefusedImage, match="fewer bits a channel"):
        nearest_product(products[:1], {(64, PLAIN): plain})


def test_what_a_line_sees_is_in_the_range_of_its_model(deep):
    channels, levels = Inspector.load(deep / "model").channels, surface(100, True)
    by_file = opened(Frame("", 0, path=deep / "bad.png"), 32, channels)
    assert np.array_equal(by_file.decoded.pixels, opened(Frame("", 0, pixels=levels), 32, channels).decoded.pixels)
    assert np.array_equal(by_file.decoded.pixels, read_image(deep / "bad.png", 32, channels).pixels)
    for frame in (Frame("", 0, path=deep / "eight.png"), Frame("", 0, pixels=np.zeros((9, 9, 3), np.uint8))):
        with pytest.raises(Unreadable, match="has 8 bits a channel, where values from"):
            opened(frame, 32, channels)


def test_the_service_refuses_lights_and_learning_a_range_too(deep, lights, tmp_path, capsys):
    with pytest.raises(UserError, match="is of 2 lights .*, which the service does not read"):
        Models(lights, batch_size=2).load("model")
    (tmp_path / "feedback.jsonl").write_text("")
    assert run_detect("learn", "--model", deep / "model", "--feedback", tmp_path / "feedback.jsonl") == 2
    assert "more than 8 bits a channel cannot learn yet" in capsys.readouterr().err
    assert run_detect("learn", "--model", lights / "model", "--feedback", tmp_path / "feedback.jsonl") == 2
    assert "a model of several lights cannot learn yet" in capsys.readouterr().err


def test_commands_that_do_not_know_lights_say_so(lights, tmp_path, capsys):
    assert run_export(lights / "model", "--out", tmp_path / "lights.onnx") == 2
    assert run_area("test", "--model", lights / "model", "--data", lights, "--area", "9") == 2
    said = capsys.readouterr().err
    assert said.count("sees several lights") == 2
    assert run_detect("fit", "--data", lights / "new", "--lights", "--method", "ae", "--out", tmp_path / "m") == 2
    assert "ae cannot look at several scales or lights" in capsys.readouterr().err
