"""Images that wait for a sink have a bound: the oldest go, however long it is away."""

import os

import numpy as np

from downstream.stations.contract import Frame
from downstream.stations.kept_images import KeptImages

FRAME = Frame("", 0.0, pixels=np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


def names(folder) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def test_the_oldest_go_and_a_restart_knows_the_rest(tmp_path):
    KeptImages(tmp_path, 1 << 30).keep(FRAME, "a")
    size = (tmp_path / "a.jpg").stat().st_size
    kept = KeptImages(tmp_path, int(3.5 * size))
    for name in "bbcd":
        kept.keep(FRAME, name)
    assert names(tmp_path) == ["b", "c", "d"] and kept.removed == 1
    for place, name in enumerate("dbc"):
        os.utime(tmp_path / f"{name}.jpg", (place, place))
    again = KeptImages(tmp_path, int(1.5 * size))
    again.keep(FRAME, "e")
    assert names(tmp_path) == ["e"] and again.removed == 3
    KeptImages(tmp_path, 1).keep(FRAME, "f")
    assert names(tmp_path) == ["f"]  # the newest may wait for itself


def test_what_every_sink_has_is_removed(tmp_path):
    kept = KeptImages(tmp_path, 1 << 30)
    for name in "abcd":
        kept.keep(FRAME, name)
    os.utime(tmp_path / "b.jpg", (0, 0))  # of a part that was never judged
    kept.remove_delivered(1, {"a": 1, "c": 2, "d": 3}.get)
    assert names(tmp_path) == ["c", "d"]
    kept.remove_delivered(3, {"a": 1, "c": 2, "d": 3}.get)
    kept.remove_delivered(3, {}.get)
    assert names(tmp_path) == [] and not kept._bytes
