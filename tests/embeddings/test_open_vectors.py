"""The vectors that commands work on: as they are, or extracted at the first use."""

from dataclasses import replace

from refusals import refusal

from embeddings.extract import extract
from embeddings.open_vectors import extraction_of, open_vectors
from pretrain.command import Names


def test_vectors_know_how_they_were_extracted(pooled, demo_folder):
    config = extraction_of(pooled.folder)
    assert (config.size_px, config.levels, config.precision) == (64, Names("level4"), "32-true")
    assert extract(config) == pooled.folder
    assert open_vectors(pooled.folder, update=True).ids.tolist() == pooled.ids.tolist()


def test_vectors_know_how_their_folder_is_laid_out(demo_folder, small, tmp_path):
    """Brought up to date as plain, it is not read as laid out, whose masks are no images."""
    asked = small(demo_folder / "bottle/test", tmp_path / "v", layout="plain", form="pooled")
    out = extract(asked)
    assert extraction_of(out).layout == "plain"
    assert len(open_vectors(out, update=True)) == len([*(demo_folder / "bottle/test").rglob("*.png")])
    assert "layout was plain and is None" in refusal(extract, replace(asked, layout=None))


def test_a_folder_and_its_data_are_not_both_given(pooled, demo_folder, tmp_path):
    assert "leave out --data" in refusal(open_vectors, pooled.folder, demo_folder)
    assert "leave out --layout" in refusal(open_vectors, pooled.folder, layout="plain")
    assert "there are no vectors" in refusal(open_vectors, tmp_path)


def test_vectors_of_patches_are_refused(demo_folder, small):
    out = extract(small(demo_folder / "bottle", form="patches", grid=2))
    assert "vectors of patches" in refusal(open_vectors, out)
