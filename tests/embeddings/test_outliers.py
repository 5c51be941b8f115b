"""What lies out is found, alone or hidden by a copy."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from embeddings.config import Extract, Outliers
from embeddings.extract import extract
from embeddings.outliers import main, ranking
from embeddings.vectors import Vectors
from pretrain.command import Names, UserError


@pytest.fixture(scope="module")
def vectors(demo_folder, tmp_path_factory) -> Vectors:
    """Bottles with two hazelnuts among the good ones, and hazelnuts as they are."""
    folder = tmp_path_factory.mktemp("outliers")
    for category in ("bottle", "hazelnut"):
        shutil.copytree(demo_folder / category, folder / "data" / category)
    for name in ("900.png", "901.png"):
        shutil.copy(demo_folder / "hazelnut/train/good/000.png", folder / "data/bottle/train/good" / name)
    out = extract(Extract(data=folder / "data", encoder=Path("random"), out=folder / "v", size_px=64))
    return Vectors(out)


def test_what_does_not_belong_comes_first(vectors):
    ranked = ranking(vectors, 5)
    assert [outlier.record.path.name for outlier in ranked["bottle"][:2]] == ["900.png", "901.png"]
    assert ranked["bottle"][0].ratio > 3
    assert [len(outliers) for outliers in ranked.values()] == [32, 30]
    ratios = [outlier.ratio for outlier in ranked["hazelnut"]]
    assert ratios == sorted(ratios, reverse=True) and ratios[15] == pytest.approx(1, abs=0.2)


def test_copies_hide_it_from_one_neighbor(vectors):
    first = {k: [outlier.record.path.name for outlier in ranking(vectors, k)["bottle"][:2]] for k in (1, 2)}
    assert "900.png" not in first[1] and "900.png" in first[2]


def test_command(vectors, tmp_path, capsys):
    asked = Outliers(vectors.folder, split=Names("train"), show=2, sheet=tmp_path / "o.png", json=tmp_path / "o.json")
    main(asked)
    shown = capsys.readouterr().out
    assert "bottle/train/good/900.png" in shown and "test/" not in shown
    with Image.open(tmp_path / "o.png") as sheet:
        assert sheet.width > 300
    assert len(json.loads((tmp_path / "o.json").read_text())) == 26
    with pytest.raises(UserError, match="give 1 or more"):
        main(Outliers(vectors.folder, show=0))
