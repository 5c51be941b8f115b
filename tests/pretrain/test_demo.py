import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from pretrain.command import UserError
from pretrain.demo import CATEGORIES, DEFECTS, MARKER, is_demo, make, render_image

SCRIPT = REPOSITORY / "pretrain/demo.py"
HALO_PX = 16  # how far a changed outline moves shadow, shading and lens blur
EVERY_DEFECT = [(category, defect) for category in CATEGORIES for defect in DEFECTS[category]]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "set"
    make(out, seed=3, categories=("pill", "grid"), train=3, good=2, defective=1, workers=1)
    return out


def test_layout_and_counts(tiny):
    assert {folder.name for folder in tiny.iterdir()} == {"pill", "grid", MARKER}
    for category in ("pill", "grid"):
        assert len(list((tiny / category / "train" / "good").glob("*.png"))) == 3
        assert len(list((tiny / category / "test" / "good").glob("*.png"))) == 2
        assert {folder.name for folder in (tiny / category / "test").iterdir()} == {"good", *DEFECTS[category]}
        for defect in DEFECTS[category]:
            with Image.open(tiny / category / "test" / defect / "000.png") as image:
                assert (image.mode, image.size, image.format) == ("RGB", (256, 256), "PNG")
            with Image.open(tiny / category / "ground_truth" / defect / "000_mask.png") as mask:
                assert (mask.mode, mask.size, mask.format) == ("L", (256, 256), "PNG")
                assert set(np.unique(mask)) == {0, 255}
    assert is_demo(tiny)
    marker = json.loads((tiny / MARKER).read_text())
    assert marker["what"] == "demo data"
    assert (marker["seed"], marker["train"], marker["good"], marker["defective"]) == (3, 3, 2, 1)


def test_same_seed_same_bytes_whatever_the_workers(tiny, tmp_path):
    make(tmp_path / "again", seed=3, categories=("pill", "grid"), train=3, good=2, defective=1, workers=2)
    assert digest(tmp_path / "again") == digest(tiny)


def test_an_image_depends_on_each_of_its_arguments():
    image = render_image("screw", "train", "good", 0, seed=0)[0]
    others = [("screw", "train", "good", 0, 1), ("screw", "train", "good", 1, 0), ("screw", "test", "good", 0, 0)]
    for other in others:
        assert np.abs(image.astype(int) - render_image(*other)[0]).mean() > 2


@cache
def rendered(category: str, defect: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    return render_image(category, "test", defect, index, seed=5)


@pytest.mark.parametrize(("category", "defect"), EVERY_DEFECT)
def test_mask_is_where_the_image_differs_from_its_clean_twin(category, defect):
    bad, mask = rendered(category, defect, 0)
    clean, same_mask = render_image(category, "test", defect, 0, seed=5, harmed=False)
    assert mask.any() and mask.mean() < 0.3
    assert np.array_equal(mask, same_mask)
    change = np.abs(bad.astype(int) - clean).max(axis=2)
    near = distance_transform_edt(~mask) <= HALO_PX
    assert change[~near].max(initial=0) <= 2, f"{(change[~near] > 2).sum()} pixels changed far from the mask"
    assert change[mask].mean() > 2.5
    assert change[mask].mean() > 3 * change[~mask].mean()


def test_good_images_have_empty_masks():
    assert not rendered("wood", "good", 0)[1].any()


def frame_features(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the outer 20 px show of light, color and noise, away from any defect: (15,)."""
    image = image.astype(np.float32)
    frame = distance_transform_edt(~mask) > HALO_PX if mask.any() else ~mask
    frame[20:-20, 20:-20] = False
    grain = image - gaussian_filter(image, (1, 1, 0))
    left, top = np.zeros_like(frame), np.zeros_like(frame)
    left[:, :128], top[:128] = True, True
    means = [image[frame & part].mean(axis=0) for part in (left, ~left, top, ~top)]
    return np.concatenate([*means, np.log(grain[frame].std(axis=0))])


def separable(good: np.ndarray, bad: np.ndarray) -> float:
    """AUROC of the distance to the nearest good image (not itself); 0.5 where the two are alike."""
    scale = good.std(axis=0)
    good, bad = good / scale, bad / scale
    among = np.linalg.norm(good[:, None] - good[None], axis=2)
    np.fill_diagonal(among, np.inf)
    apart = np.linalg.norm(bad[:, None] - good[None], axis=2)
    apart[np.arange(len(bad)), np.arange(len(bad)) % len(good)] = np.inf  # as many neighbors as the good ones have
    return float((apart.min(axis=1)[:, None] > among.min(axis=1)[None]).mean())


@cache
def frames(categories: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per category, the frame features of 12 good and of 12 or more defective images."""
    features = {}
    for category in categories:
        good = [rendered(category, "good", index) for index in range(12)]
        bad = [rendered(category, defect, index) for defect in DEFECTS[category] for index in range(3)]
        features[category] = tuple(np.stack([frame_features(*pair) for pair in pairs]) for pairs in (good, bad))
    return features


# Each takes a second.
some_or_all = pytest.mark.parametrize("categories", [CATEGORIES[::4], pytest.param(CATEGORIES, marks=pytest.mark.slow)])


@some_or_all
def test_good_and_bad_differ_in_nothing_but_the_defect(categories):
    found = {category: separable(*pair) for category, pair in frames(categories).items()}
    # chance alone spreads one category's figure by about 0.12, the mean of 4 by 0.06 and that of 15 by 0.03
    assert all(0.12 < value < 0.88 for value in found.values()), found
    assert abs(np.mean(list(found.values())) - 0.5) < 0.1, found


BRIGHTER, NOISIER = np.array([8] * 12 + [0] * 3), np.array([0] * 12 + [0.3] * 3)


@some_or_all
def test_a_difference_in_light_would_be_noticed(categories):
    brighter = {category: separable(good, bad + BRIGHTER) for category, (good, bad) in frames(categories).items()}
    noisier = {category: separable(good, bad + NOISIER) for category, (good, bad) in frames(categories).items()}
    assert np.mean(list(brighter.values())) > 0.65, brighter
    assert np.mean(list(noisier.values())) > 0.65, noisier


def test_a_set_that_is_there_is_left_alone_and_another_replaced(tmp_path, capsys):
    out, few = tmp_path / "set", {"categories": ("carpet",), "train": 2, "good": 1, "defective": 0, "workers": 1}
    make(out, seed=0, **few)
    image = out / "carpet" / "train" / "good" / "000.png"
    before, written = image.read_bytes(), image.stat().st_mtime_ns
    make(out, seed=0, **few)
    assert "left alone" in capsys.readouterr().err
    assert image.stat().st_mtime_ns == written
    make(out, seed=1, **few)
    assert image.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"set", ".set.lock"}


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    ran = subprocess.run([sys.executable, SCRIPT, "--out", tmp_path / "mine"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "is not a demo set" in ran.stderr and "Traceback" not in ran.stderr
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    assert not is_demo(tmp_path / "mine")


def test_user_errors_name_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match="did you mean hazelnut"):
        make(tmp_path / "set", categories=("haselnut",))
    with pytest.raises(UserError, match="did you mean crack"):
        render_image("pill", "test", "crak", 0, seed=0)
    with pytest.raises(UserError, match="train is -1"):
        make(tmp_path / "set", train=-1)


def test_killed_half_way_leaves_nothing_that_looks_like_a_set(tmp_path):
    out = tmp_path / "set"
    running = subprocess.Popen([sys.executable, SCRIPT, "--out", out, "--workers", "1"], start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while len(list(tmp_path.rglob("*.png"))) < 5:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not out.exists()
    assert not any(is_demo(folder) for folder in tmp_path.iterdir())
    make(out, categories=("tile",), train=1, good=1, defective=0, workers=1)
    assert is_demo(out)


def test_what_a_killed_run_left_is_cleared_away_by_the_next(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale = tmp_path / f".set.{platform.node()}-{ended.pid}.part" / "wood"
    stale.mkdir(parents=True)
    make(tmp_path / "set", categories=("wood",), train=1, good=1, defective=0, workers=1)
    assert is_demo(tmp_path / "set")
    assert not stale.parent.exists()
    assert not (tmp_path / "set" / "wood" / "ground_truth").exists()


def test_two_at_once_make_one_set(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path / "set", "--categories", "wood"]
    few = ("--train", "8", "--good", "1", "--defective", "1", "--workers", "1")
    both = [subprocess.Popen([*command, *few], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [running.communicate(timeout=60)[1] for running in both]
    assert [running.returncode for running in both] == [0, 0], said
    assert sum("left alone" in words for words in said) == 1
    assert len(list((tmp_path / "set").rglob("train/good/*.png"))) == 8


def test_what_somebody_put_into_a_demo_set_is_not_lost(tmp_path):
    make(tmp_path / "set", categories=("wood",), train=1, good=0, defective=0, workers=1)
    own = tmp_path / "set" / "widget" / "train" / "good" / "0.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="also holds widget"):
        make(tmp_path / "set", seed=1, categories=("wood",), train=1, good=0, defective=0, workers=1)
    assert own.read_bytes() == b"mine"


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "set", categories=("wood",))
