"""Pairs that leak or contradict each other are found, and others are not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embeddings.config import Duplicates, Extract
from embeddings.duplicates import main, near_pairs
from embeddings.extract import extract
from embeddings.vectors import Vectors
from pretrain.command import Names, UserError


@pytest.fixture(scope="module")
def vectors(demo_folder, tmp_path_factory) -> Vectors:
    """Two categories with a copy in test, a copy that is called defective, and one that was saved as JPEG again."""
    parent = tmp_path_factory.mktemp("duplicates")
    folder = parent / "data"
    for category in ("bottle", "hazelnut"):
        shutil.copytree(demo_folder / category, folder / category)
    bottle = folder / "bottle"
    shutil.copy(bottle / "train/good/003.png", bottle / "test/good/900.png")
    shutil.copy(bottle / "train/good/004.png", bottle / "test/scratch/900.png")
    with Image.open(bottle / "train/good/005.png") as image:
        image.save(bottle / "train/good/901.jpg", quality=95)
    out = extract(Extract(data=folder, encoder=Path("random"), out=parent / "v", size_px=64, precision="32-true"))
    return Vectors(out)


def named(pairs) -> dict[frozenset[str], str]:
    return {frozenset((pair.first.path.name, pair.second.path.name)): pair.issue for pair in pairs}


def test_copies_and_near_ones_are_told_apart(vectors):
    pairs = near_pairs(vectors, 0.1)
    assert named(pairs) == {
        frozenset(("003.png", "900.png")): "copy, train and test",
        frozenset(("004.png", "900.png")): "copy, train and test, good and defective",
        frozenset(("005.png", "901.jpg")): "within train",
    }
    assert [pair.is_copy for pair in pairs] == [True, True, False] and 0 < pairs[-1].ratio < 0.1
    assert near_pairs(vectors, 0.1, ["hazelnut"]) == []
    assert len(near_pairs(vectors, 0.9)) > 3


def test_many_copies_of_one_image(demo_folder, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(15):
        shutil.copy(demo_folder / "bottle/train/good/000.png", folder / f"{number:02d}.png")
    vectors = Vectors(extract(Extract(data=folder, encoder=Path("random"), out=tmp_path / "v", size_px=64)))
    pairs = near_pairs(vectors, 0.1)
    assert pairs and all(pair.is_copy and pair.issue == "copy" for pair in pairs)
    assert all(np.isfinite([pair.ratio, pair.distance]).all() for pair in pairs)


def test_command_says_what_leaks(vectors, tmp_path, capsys):
    asked = Duplicates(vectors.folder, sheet=tmp_path / "p.html", json=tmp_path / "p.json")
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "3 near pairs, 2 copy, 2 train and test" in shown and "bottle/test/good/900.png" in shown
    assert (tmp_path / "p.html").read_text().count("<section>") == 3
    assert json.loads((tmp_path / "p.json").read_text())[0]["issue"].startswith("copy, train and test")
    assert main(Duplicates(vectors.folder, strict=True)) == 2
    assert main(Duplicates(vectors.folder, category=Names("hazelnut"), strict=True)) == 0
    with pytest.raises(UserError, match="--closer-than 2"):
        main(Duplicates(vectors.folder, closer_than=2))
