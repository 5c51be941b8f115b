"""Versions of a model: which is in use, forth and back, and what is left of a process that is killed at any step."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.contract.model_folder import FILE, check_parts, fill_model, parts_of, write_model
from downstream.learning import versions
from downstream.learning.versions import (
    BASE,
    NUMBER,
    add_version,
    changing,
    fitted_in_place_of,
    history_of,
    next_number,
    promote,
    roll_back,
    version_in_use,
    version_of,
    versions_of,
)
from pretrain.command import UserError
from pretrain.files import check_digest, read_tensors, write_tensors


class Tiny:
    """A method whose file says which version it is of."""

    def __init__(self, number: int) -> None:
        self.number = number

    def save(self, folder: Path) -> None:
        write_tensors(folder / "method.safetensors", {"number": torch.tensor(self.number)}, {"method": "Tiny"})
        if self.number != 1:  # not all versions have the same files
            write_tensors(folder / "more.safetensors", {"number": torch.tensor(self.number)}, {})


def metadata(number: int) -> dict:
    return {"category": "nut", "metadata": {NUMBER: number, BASE: 1, "learned": {"good": 2, "defective": 1}}}


@pytest.fixture(autouse=True)
def refused_at_once(monkeypatch):
    monkeypatch.setattr(versions, "WAIT_S", 0)


@pytest.fixture
def model(tmp_path) -> Path:
    """Version 1, as `fit` leaves it, in use, and version 2 beside it."""
    folder = tmp_path / "models" / "nut"
    write_model(folder, Tiny(1), category="nut", metadata={})
    learned(folder, 2)
    return folder


def learned(model: Path, number: int) -> None:
    with changing(model):
        add_version(model, number, lambda folder: fill_model(folder, Tiny(number), **metadata(number)))


def assert_whole(folder: Path) -> int:
    """The number of the version in a folder, all parts of which are its own."""
    number = version_in_use(folder)
    check_parts(folder, parts_of(folder))
    for name in parts_of(folder):
        check_digest(folder / name)
        assert int(read_tensors(folder / name)[0]["number"]) == number
    assert {path.name for path in folder.glob("*.safetensors")} == set(parts_of(folder))
    return number


def test_a_model_that_was_fitted_is_version_1(tmp_path):
    folder = tmp_path / "nut"
    with pytest.raises(UserError, match="there is no model in"):
        version_in_use(folder)
    assert next_number(folder) == 1
    write_model(folder, Tiny(1), category="nut", metadata={})
    (only,) = versions_of(folder)
    assert (only.number, only.folder, only.is_in_use, only.learned) == (1, folder, True, None)
    with pytest.raises(UserError, match="no version of .* was in use before version 1"):
        roll_back(folder)


def test_a_new_version_stands_beside_until_it_is_promoted(model):
    assert [(each.number, each.is_in_use) for each in versions_of(model)] == [(1, True), (2, False)]
    assert assert_whole(model) == 1 and assert_whole(model / "versions" / "2") == 2
    assert promote(model, 2, by="anna").is_in_use and assert_whole(model) == 2
    assert version_of(model, 1).folder == model / "versions" / "1"
    assert roll_back(model, by="ben").number == 1 == assert_whole(model)
    assert not (model / "more.safetensors").exists()
    assert [(each.version, each.by, each.how) for each in history_of(model)] == [
        (1, "", "fitted"), (2, "anna", "promoted"), (1, "ben", "rolled back"),
    ]  # fmt: skip
    assert next_number(model) == 3


def test_rolling_back_leads_along_the_line_that_led_here(model):
    learned(model, 3)
    promote(model, 2)
    promote(model, 3)
    assert roll_back(model).number == 2 and roll_back(model).number == 1
    with pytest.raises(UserError, match="name one, of 1, 2, 3"):
        roll_back(model)
    assert roll_back(model, 3).number == 3
    assert roll_back(model).number == 1


def test_the_version_in_use_is_kept_as_it_is_when_another_takes_its_place(model):
    write_model(model, Tiny(1), category="renamed", metadata={})  # as area.py writes how it decides
    promote(model, 2)
    assert '"renamed"' in (model / "versions" / "1" / FILE).read_text()


def test_a_model_that_is_fitted_in_place_of_versions_is_the_next_one(model, tmp_path):
    with fitted_in_place_of(tmp_path / "new") as said:
        assert said == {}
    promote(model, 2)
    with fitted_in_place_of(model) as said:
        assert said == {NUMBER: 3, BASE: 3}
        with pytest.raises(UserError, match="another process changes"):  # nobody makes another version 3 meanwhile
            learned(model, 3)
        write_model(model, Tiny(3), category="nut", metadata=said)
    assert assert_whole(model) == 3 and version_of(model, 3).base == 3
    assert roll_back(model).number == 2


def test_a_damaged_version_stands_in_nobodys_way(model):
    learned(model, 3)
    (model / "versions" / "2" / FILE).write_text("{")
    assert [version.number for version in versions_of(model)] == [1, 3] and next_number(model) == 4
    with pytest.raises(UserError, match="is damaged"):
        promote(model, 2)
    assert promote(model, 3).is_in_use


@pytest.mark.parametrize("damage", ["{", None])
def test_fitting_mends_a_damaged_model_and_takes_no_number_that_there_is(damage, model):
    (model / FILE).unlink()  # it is the stored one's too
    if damage:
        (model / FILE).write_text(damage)
    before = {path: path.read_bytes() for path in (model / "versions").rglob("*.safetensors")}
    with fitted_in_place_of(model) as said:
        assert said == {NUMBER: 3, BASE: 3}
        write_model(model, Tiny(3), category="nut", metadata=said)
    assert {path: path.read_bytes() for path in before} == before
    assert [version.number for version in versions_of(model)] == [1, 2, 3]
    assert promote(model, 2).is_in_use and assert_whole(model) == 2


def test_fitting_over_a_model_of_a_newer_heldout_is_refused(model):
    (model / FILE).write_text(json.dumps({**json.loads((model / FILE).read_text()), "format": 99}))
    with pytest.raises(UserError, match="written by a newer heldout"), fitted_in_place_of(model):
        pass


def test_what_was_proved_beside_another_version_takes_no_place(model):
    learned(model, 3)
    promote(model, 2)
    with pytest.raises(UserError, match="version 3 of .* was proved beside version 1, and version 2 is in use"):
        promote(model, 3, in_place_of=1)
    assert assert_whole(model) == 2 and promote(model, 3, in_place_of=2).is_in_use


def test_mistakes_are_one_sentence(model):
    with pytest.raises(UserError, match="there is no version 7 of .*choose from 1, 2"):
        promote(model, 7)
    with pytest.raises(UserError, match="version 1 of .* is in use already"):
        promote(model, 1)
    with changing(model), pytest.raises(UserError, match="another process changes the versions of"):
        promote(model, 2)
    part = model / "versions" / "2" / "method.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="damaged"):
        promote(model, 2)
    assert assert_whole(model) == 1


def test_whoever_is_killed_leaves_the_version_in_use_whole_and_in_use(model):
    """At every step in turn, by a process that is small, so that it is forked in a moment."""
    script = Path(__file__).parents[2] / "killed_versions.py"
    done = subprocess.run([sys.executable, script, model], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    assert steps.keys() == {"learn", "promote", "roll back"} and min(steps.values()) > 10


def test_readers_find_one_version_or_the_other(model):
    """While a thread promotes and rolls back, what is read at any moment is a version that there is."""
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(version_in_use(model))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        promote(model, 2)
        roll_back(model)
    stop.set()
    reader.join()
    assert seen <= {1, 2} and len(seen) == 2
    assert np.unique([change.version for change in history_of(model)]).tolist() == [1, 2]
    assert versions.version_in_use(model) == 1


def test_where_models_can_only_be_read_that_is_one_sentence():
    with pytest.raises(UserError, match="models can only be read in /sys"), changing(Path("/sys/nut")):
        pass
