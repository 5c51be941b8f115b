"""What the tests of the campaign and of its attacks share."""

import shutil

import pytest


@pytest.fixture
def material(demo_folder, padim_folder, tmp_path, monkeypatch):
    """Of the campaign, made of what the session has already: its own takes half a minute."""
    from embeddings.config import Extract  # here, as their imports take seconds
    from embeddings.extract import extract
    from scripts import chaos
    from scripts.attacks.material import Material

    made = Material(tmp_path / "material")
    made.folder.mkdir()
    made.data.symlink_to(demo_folder)
    shutil.copytree(padim_folder, made.model)
    extract(Extract(data=demo_folder, out=made.vectors, encoder=made.encoder, size_px=64, precision="32-true"))
    monkeypatch.setattr(chaos, "make_material", lambda folder: made)
    return made
