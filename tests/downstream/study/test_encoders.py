"""Which encoder may be judged on which category."""

import json
import os
import re
from pathlib import Path

import pytest

from downstream.study.encoders import choose_encoders
from pretrain.command import UserError
from pretrain.encoder import Encoder
from pretrain.files import read_tensors, write_tensors
from pretrain.weights import Origin

DATA = "images"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of real data, an empty runs/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / DATA).mkdir()
    return tmp_path


def made(run: Path, *saw: str, data: str = DATA, demo: bool = False, finished: bool = True, seed: int = 0) -> str:
    """An encoder file as pretraining leaves it."""
    Encoder("timm/test_resnet", seed, origin=Origin(data, saw, demo)).save(run / "encoder.safetensors")
    if finished:
        (run / "finished").touch()
    return str(run / "encoder.safetensors")


def chosen(asked, categories, folder=Path(DATA), **options) -> dict[str, list[str]]:
    by_category, _ = choose_encoders(asked, folder, categories, **options)
    return {category: [str(file.path) for file in files] for category, files in by_category.items()}


def test_each_category_takes_those_that_never_saw_it(here):
    first, second = made(here / "a", "nut", "pill"), made(here / "b", "pill", "tire")
    assert chosen([first, second], ["nut", "tire", "wood"]) == {
        "nut": [second], "tire": [first], "wood": [first, second],
    }  # fmt: skip


def test_a_category_that_all_saw_is_refused_with_the_command_that_helps(here):
    path = made(here / "a", "nut", "pill")
    with pytest.raises(UserError, match=r"saw nut.*--allow-seen.*pretrain/simclr.py --data images --hold-out nut"):
        chosen([path], ["tire", "nut"])


def test_allow_seen_takes_it_and_says_so(here):
    path = made(here / "a", "nut", "pill")
    files, warnings = choose_encoders([path], Path(DATA), ["nut"], allow_seen=True)
    assert [file.saw for file in files["nut"]] == [("nut", "pill")]
    assert warnings == [f"nut was seen in pretraining by {path} (--allow-seen)"]


def test_demo_encoders_are_refused_on_other_data(here):
    with pytest.raises(UserError, match="demo data and says nothing of real products"):
        chosen([made(here / "a", "nut", demo=True)], ["tire"])


def test_default_is_the_newest_finished_one_of_the_same_data(here):
    runs = here / "runs"
    for age, (name, saw, options) in enumerate(
        [
            ("old", ("pill",), {}),
            ("new", ("pill", "wood"), {}),
            ("saw-it", ("nut",), {}),
            ("unfinished", ("pill",), {"finished": False}),
            ("other-data", ("pill",), {"data": "elsewhere"}),
            ("demo", ("pill",), {"demo": True}),
        ]
    ):
        made(runs / name, *saw, **options)
        if (mark := runs / name / "finished").exists():
            os.utime(mark, (1000 + age, 1000 + age))
    assert chosen([], ["nut"]) == {"nut": ["runs/new/encoder.safetensors"]}
    _, (warning,) = choose_encoders([], Path(DATA), ["nut"])
    assert warning == "runs/new/encoder.safetensors, the newest, was never compared with ImageNet's weights"


def test_default_without_one_for_all_takes_one_for_each(here):
    made(here / "runs/a", "nut")
    made(here / "runs/b", "tire")
    assert chosen([], ["nut", "tire"]) == {
        "nut": ["runs/b/encoder.safetensors"], "tire": ["runs/a/encoder.safetensors"],
    }  # fmt: skip


def test_default_without_any_says_what_to_type(here):
    made(here / "runs/a", "nut")
    files, (warning,) = choose_encoders([], Path(DATA), ["nut", "tire"])
    assert files == {"nut": [], "tire": []}
    assert re.search("nothing is said of SimCLR.*without nut; python pretrain/simclr.py .*--hold-out nut,tire", warning)


def test_none_needs_no_encoder(here):
    assert chosen(["none"], ["nut"]) == {"nut": []}


def test_damaged_and_newer_files_are_left_out_with_a_word(here):
    good, newer = made(here / "a", "pill"), here / "newer/encoder.safetensors"
    tensors, metadata = read_tensors(Path(good))
    write_tensors(newer, tensors, {**metadata, "format": 99})
    damaged = here / "damaged.safetensors"
    damaged.write_bytes(Path(good).read_bytes()[:5000])
    files, warnings = choose_encoders([str(newer), good, str(damaged)], Path(DATA), ["nut"])
    assert [str(file.path) for file in files["nut"]] == [good]
    assert len(warnings) == 2 and "update heldout" in warnings[0] and "damaged" in warnings[1]
    with pytest.raises(UserError, match="update heldout"):
        choose_encoders([str(newer)], Path(DATA), ["nut"])


def test_a_file_of_the_default_that_cannot_be_read_is_passed_over(here):
    made(here / "runs/a", "pill")
    made(here / "runs/b", "pill")
    (here / "runs/b/encoder.safetensors").write_bytes(b"\x10" + json.dumps({}).encode())
    assert chosen([], ["nut"]) == {"nut": ["runs/a/encoder.safetensors"]}
