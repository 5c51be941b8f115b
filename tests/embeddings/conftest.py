"""Vectors of the demo set, extracted once for all tests of this folder."""

from pathlib import Path

import pytest

from embeddings.config import Extract
from embeddings.extract import extract
from embeddings.vectors import Vectors

SIZE_PX = 64


@pytest.fixture(scope="session")
def pooled(demo_folder, tmp_path_factory) -> Vectors:
    """One vector per image of the demo set by a random encoder; nobody changes them, but an index may lie beside."""
    out = tmp_path_factory.mktemp("vectors") / "pooled"
    options = {"encoder": Path("random"), "size_px": SIZE_PX, "precision": "32-true"}
    return Vectors(extract(Extract(data=demo_folder, out=out, **options)))


@pytest.fixture
def small(demo_folder, tmp_path):
    """Options of a small extraction of the demo set, which keywords change."""

    def options(data: Path = demo_folder, out: Path = tmp_path / "v", **named: object) -> Extract:
        usual = {"data": data, "out": out, "encoder": Path("random"), "size_px": SIZE_PX, "precision": "32-true"}
        return Extract(**{**usual, **named})

    return options
