"""Good images of a manifest fitted to in parts: the model of one part, and nearly that of a folder."""

import pytest
from fitted_models import SMALL, run_detect
from PIL import Image

from downstream.inspection.inspector import Inspector
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


def fitted(data, out, *more) -> Inspector:
    assert run_detect("fit", "--data", data, "--method", "padim", "--out", out, *SMALL, *more) == 0
    return Inspector.load(out, "cpu")


def test_parts_are_merged_to_the_model_of_a_folder(good, blotched, tmp_path, capsys):
    models = [fitted(good / "bolts.parquet", tmp_path / str(images), "--part-images", images) for images in (2, 100)]
    assert "bad.png: not an image" in capsys.readouterr().err
    models.append(fitted(good, tmp_path / "folder"))
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


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--method", "patchcore"], "only what padim learns"), (["--method", "padim", "--align"], "looks at all"),
     (["--method", "padim", "--shots", "4"], "--shots draws from all"),
     (["--method", "padim", "--part-images", "0"], "0 images make no part")],
)  # fmt: skip
def test_what_is_not_merged_is_refused(more, words, good, tmp_path, capsys):
    options = SMALL if "padim" in more else SMALL[:-2]
    assert run_detect("fit", "--data", good / "bolts.parquet", "--out", tmp_path / "m", *options, *more) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert run_detect("fit", "--data", good, "--address", "local", "--out", tmp_path / "m", *SMALL) == 2
    assert "--address is for a manifest" in capsys.readouterr().err.splitlines()[-1]
