"""Good images of a manifest fitted to in parts: the model of one part, and nearly that of a folder."""

from pathlib import Path

import pytest
from fitted_models import PATCHCORE, SMALL, TINY, run_detect
from PIL import Image

from downstream.inspection.config import Fit
from downstream.inspection.inspector import Inspector
from downstream.inspection.manifest.fit import Learned, Seen, everywhere
from pretrain.command import UserError
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place


@pytest.fixture(scope="module")
def good(demo_folder, tmp_path_factory):
    """A dozen good images, one that is none, and their manifest."""
    folder = tmp_path_factory.mktemp("good")
    for path in sorted((demo_folder / "hazelnut" / "train" / "good").iterdir()):
        Image.open(path).save(folder / path.name)
    (folder / "bad.png").write_bytes(b"no image")
    write_manifest(Place.of(str(folder)), folder / "bolts.parquet")
    return folder


def fitted(data, out, method, *more) -> Inspector:
    options = SMALL if method == "padim" else (*SMALL[:-1], TINY + PATCHCORE)
    assert run_detect("fit", "--data", data, "--method", method, "--out", out, *options, *more) == 0
    return Inspector.load(out, "cpu")


@pytest.mark.parametrize("method", ["padim", "patchcore", "fused"])
def test_parts_are_merged_to_the_model_of_a_folder(method, good, blotched, tmp_path, capsys):
    """Of so few images all patches are kept."""
    models = [
        fitted(good / "bolts.parquet", tmp_path / str(images), method, "--part-images", images) for images in (2, 100)
    ]
    assert "bad.png: not an image" in capsys.readouterr().err
    models.append(fitted(good, tmp_path / "folder", method))
    parts, whole, folder = models
    assert parts.metadata["parts"] > 2 and whole.metadata["parts"] == 1 and parts.category == "bolts"
    assert sorted(parts.metadata["learned_from"]) == sorted(whole.metadata["learned_from"])
    assert parts.size_px == folder.size_px and parts.metadata["aspect"] == folder.metadata["aspect"]
    images = sorted(blotched.iterdir())
    for other, tolerance in ((whole, 1e-5), (folder, 2e-3)):
        assert parts.threshold.value == pytest.approx(other.threshold.value, rel=tolerance)
        for ours, theirs in zip(parts.predict(images), other.predict(images), strict=True):
            assert ours.score == pytest.approx(theirs.score, rel=tolerance)
            assert ours.is_defective == theirs.is_defective


def test_a_worker_in_another_folder_finds_the_encoders_that_were_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.safetensors").touch()
    config = Fit(data=tmp_path, encoder=Path("random"), options="encoder=tiny.safetensors,levels=[level2]")
    assert everywhere(config, False).options == {"encoder": f"{tmp_path}/tiny.safetensors", "levels": ["level2"]}


def test_an_image_that_was_changed_meanwhile_ends_the_fit(tmp_path):
    place, seen = Place.of(str(tmp_path)), Seen(Place.of(str(tmp_path)), 8)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    digests = [place.image(name).file_digest.hex() for name in ("a.png", "b.png")]
    assert [*seen.parts_of([Learned(None, ["a.png", "b.png"], digests, [1.0, 1.0], [])])] == []
    assert seen[1].shape == (3, 8, 8) and len(seen) == 2
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png was changed while it was learned from"):
        seen[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png, which was learned from, "):
        seen[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--method", "mean"], "parts are merged for fused, padim, patchcore alone: fit mean to a folder"),
     (["--method", "padim", "--align"], "looks at all"),
     (["--method", "padim", "--shots", "4"], "--shots draws from all"),
     (["--method", "padim", "--part-images", "0"], "0 images make no part")],
)  # fmt: skip
def test_what_is_not_merged_is_refused(more, words, good, tmp_path, capsys):
    options = SMALL if "padim" in more else SMALL[:-2]
    assert run_detect("fit", "--data", good / "bolts.parquet", "--out", tmp_path / "m", *options, *more) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert run_detect("fit", "--data", good, "--address", "local", "--out", tmp_path / "m", *SMALL) == 2
    assert "--address is for a manifest" in capsys.readouterr().err.splitlines()[-1]
