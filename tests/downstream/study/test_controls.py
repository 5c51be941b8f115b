"""What an encoder is compared with: the start that its file names, or nothing."""

import shutil
from pathlib import Path

import pytest

from downstream.study.cell import IMAGENET, RANDOM, START
from downstream.study.controls import ControlEncoders, StartRow, recorded_start
from downstream.study.encoders import PretrainedEncoder
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, fingerprint, load_encoder, make_encoder
from pretrain.weights import Origin, Start


def opened(architecture: str, seed: int = 0, **recipe: object) -> PretrainedEncoder:
    """An encoder file as SimCLR leaves it, with the start that its recipe names."""
    encoder = Encoder(architecture, seed, origin=Origin("products", ("nut",), recipe=recipe))
    return PretrainedEncoder(Path("runs/a/encoder.safetensors"), encoder, fingerprint(encoder))


def start_of(file: PretrainedEncoder) -> StartRow:
    (start,) = ControlEncoders({"pill": [file]}).starts.values()
    return start


def test_random_controls_have_the_architecture_and_are_made_once():
    name = "timm/test_efficientnet"
    controls = ControlEncoders({"nut": [opened(name)]})
    encoder, identity = controls.random(controls.architecture, 3)
    assert encoder.architecture == name and identity == fingerprint(Encoder(name, 3))
    assert controls.random(name, 3)[0] is encoder
    assert controls.random(name, 4)[1] != identity


def test_without_a_pretrained_encoder_the_controls_are_of_the_default():
    controls = ControlEncoders({"nut": []})
    assert controls.starts == {} and controls.architecture == DEFAULT_ARCHITECTURE
    assert controls.imagenet[DEFAULT_ARCHITECTURE][1] == fingerprint(make_encoder(start="imagenet"))


def test_what_started_from_imagenet_is_compared_with_its_weights():
    start = start_of(opened(DEFAULT_ARCHITECTURE, start="imagenet"))
    assert (start.row, start.name, start.note) == (IMAGENET, "ImageNet", "")


def test_imagenet_weights_that_this_machine_lacks_are_not_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    start = start_of(opened("resnet18", start="hub"))
    assert start.row is None and "started from ImageNet, which is not at hand" in start.note


@pytest.mark.parametrize(("recipe", "words"), [({"start": "random"}, ""), ({}, "does not say what it started from")])
def test_a_random_start_and_an_unknown_one_are_the_random_row(recipe, words):
    start = start_of(opened("timm/test_resnet", **recipe))
    assert start.row == RANDOM and words in start.note and bool(start.note) == bool(words)


def test_a_start_from_an_encoder_file_gets_rows_of_its_own_while_the_file_is_there(tmp_path):
    path = tmp_path / "teacher.safetensors"
    teacher = Encoder("timm/test_resnet", 5, origin=Origin("screws", ("a", "b")))
    teacher.save(path)
    start = start_of(opened("timm/test_resnet", start=str(path)))
    assert start.row == START and start.control[1] == fingerprint(teacher) and not start.control[0].training
    assert start.saw == "screws, a, b" and "found by its path" in start.note
    path.unlink()
    start = start_of(opened("timm/test_resnet", start=str(path)))
    assert start.row is None and start.control is None
    assert f"started from {path}, which is not at hand" in start.note


def test_a_start_file_of_another_architecture_is_not_at_hand(tmp_path):
    Encoder("timm/test_efficientnet").save(tmp_path / "teacher.safetensors")
    assert start_of(opened("timm/test_resnet", start=str(tmp_path / "teacher.safetensors"))).row is None


def test_a_copy_of_imagenets_weights_is_the_imagenet_row(tmp_path):
    path = shutil.copy(make_file(tmp_path), tmp_path / "copy.safetensors")
    start = start_of(opened(DEFAULT_ARCHITECTURE, start=str(path)))
    assert (start.row, start.name, start.note) == (IMAGENET, "ImageNet", "")


def make_file(folder: Path) -> Path:
    make_encoder(start="imagenet").save(folder / "imagenet.safetensors")
    return folder / "imagenet.safetensors"


def test_a_start_whose_fingerprint_is_recorded_must_have_it(tmp_path):
    path = tmp_path / "teacher.safetensors"
    teacher = Encoder("timm/test_resnet", 5)
    teacher.save(path)
    file = opened("timm/test_resnet", start="random")
    file.encoder.started_from = Start(str(path), fingerprint(teacher))  # goes before the recipe
    start = start_of(file)
    assert start.row == START and start.note == "" and start.name == str(path)
    Encoder("timm/test_resnet", 6).save(path)
    start = start_of(file)
    assert start.row is None and f"another one now (fingerprint {fingerprint(path)}" in start.note


def test_what_simclr_was_really_started_from_is_found(tmp_path):
    """The header as make_encoder leaves it, read from the file."""
    make_encoder(start="imagenet").save(tmp_path / "encoder.safetensors")
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert recorded_start(encoder) == ("imagenet", fingerprint(encoder))
    assert recorded_start(make_encoder("timm/test_resnet", "random"))[0] == "random"
