"""Images that wait for a sink have a bound: the oldest go, however long it is away."""

import os
import time

import numpy as np

from downstream.stations.contract import Frame
from downstream.stations.kept_images import KeptImages

FRAME = Frame("", 0.0, pixels=np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


def names(folder) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def kept_in(folder, limit_bytes: int = 1 << 30, place: int = 0, **numbers: int) -> KeptImages:
    """With the sinks at a place, and the signals of some parts."""
    return KeptImages(folder, limit_bytes, lambda: place, numbers.get)


def test_the_oldest_go_and_a_restart_knows_the_rest(tmp_path):
    kept_in(tmp_path).keep(FRAME, "a")
    size = (tmp_path / "a.jpg").stat().st_size
    kept = kept_in(tmp_path, int(3.5 * size))
    for name in "bbcd":
        kept.keep(FRAME, name)
    assert names(tmp_path) == ["b", "c", "d"] and kept.removed == 1
    for place, name in enumerate("dbc"):
        os.utime(tmp_path / f"{name}.jpg", (place, place))
    again = kept_in(tmp_path, int(1.5 * size), place=1, d=1, b=2, c=3)
    again.keep(FRAME, "e")
    assert names(tmp_path) == ["e"] and again.removed == 2  # every sink has d
    kept_in(tmp_path, 1).keep(FRAME, "f")
    assert names(tmp_path) == ["f"]  # the newest may wait for itself


def test_what_every_sink_has_is_removed(tmp_path):
    for name in "abcd":
        kept_in(tmp_path).keep(FRAME, name)
        os.utime(tmp_path / f"{name}.jpg", (now_s := time.time() + ord(name) - 100, now_s))
    os.utime(tmp_path / "b.jpg", (0, 0))  # of a part that was never judged
    kept_in(tmp_path, place=1, a=1, c=2, d=3).remove_delivered()
    assert names(tmp_path) == ["c", "d"]
    kept = kept_in(tmp_path, place=3, a=1, c=2, d=3)
    kept.remove_delivered()
    kept.remove_delivered()
    assert names(tmp_path) == [] and not kept._bytes


def test_what_somebody_took_away_is_forgotten(tmp_path):
    for name in "ab":
        kept_in(tmp_path).keep(FRAME, name)
    os.utime(tmp_path / "a.jpg", (0, 0))
    kept = kept_in(tmp_path, place=1, b=1)
    (tmp_path / "a.jpg").unlink()
    kept.remove_delivered()
    assert names(tmp_path) == [] and not kept._bytes and not kept._kept
