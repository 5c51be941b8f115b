"""Frozen layers are asked once for each image, and a full disk is told before anything is computed."""

import pytest
import torch

from baselines.cam.frozen_features import FrozenFeatures
from pretrain.command import UserError


def test_frozen_layers_are_asked_once_for_each_image(tmp_path):
    asked = []

    def early(positions):
        asked.extend(positions)
        return torch.tensor([[[float(p)]] for p in positions])

    known = FrozenFeatures(early, 7, tmp_path / "frozen.f32", batch=3)
    assert known([6, 0, 3]).flatten().tolist() == [6, 0, 3]
    # The first is asked for its shape too, and fills up the last batch.
    assert sorted(set(asked)) == list(range(7)) and len(asked) == 1 + 9
    assert (tmp_path / "frozen.f32").stat().st_size == 7 * 4
    again = FrozenFeatures(early, 7, tmp_path / "frozen.f32", batch=3)
    assert again([5]).item() == 5 and len(asked) == 11
    assert [path.name for path in tmp_path.iterdir()] == ["frozen.f32"]


def test_a_full_disk_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="make room"):
        FrozenFeatures(lambda positions: torch.zeros(len(positions), 4), 7, tmp_path / "f", batch=3)
    assert not list(tmp_path.iterdir())


def test_the_file_is_written_and_not_mapped_to_be_written(tmp_path):
    """Where the disk fills up meanwhile, a process that writes to what is mapped is killed by a signal."""
    sizes = []

    def early(positions):
        sizes.extend(path.stat().st_size for path in tmp_path.iterdir())
        return torch.zeros(len(positions), 50_000)

    FrozenFeatures(early, 6, tmp_path / "f", batch=2)
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] < 6 * 200_000


def test_a_file_that_was_cut_is_made_again(tmp_path):
    (tmp_path / "f").write_bytes(bytes(10))
    known = FrozenFeatures(lambda positions: torch.ones(len(positions), 4), 7, tmp_path / "f", batch=3)
    assert known([6]).tolist() == [[1.0] * 4]
