"""What a run learns from and what is left to be resolved: images, views, rates and options, before the first step."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_folders import image
from made_layouts import MADE

from pretrain.command import Names, UserError
from pretrain.config import Config, resolved
from pretrain.simclr import batch_members, learning_rate_at, make_views, prepared
from pretrain.training.fabric import make_fabric


@pytest.fixture(scope="module")
def config(demo_folder) -> Config:
    fabric = make_fabric("cpu", "32-true")
    return prepared(Config(demo_folder, size_px=32, batch=8, hold_out=Names("bottle"), device="cpu"), fabric)[0]


def test_every_epoch_shows_every_image_once(config):
    count = 21
    epoch = np.concatenate([batch_members(config, step, count) for step in range(2)])
    assert len(set(epoch)) == 16 and epoch.max() < count
    assert not np.array_equal(epoch[:8], batch_members(config, 2, count))
    assert np.array_equal(batch_members(config, 5, count), batch_members(config, 5, count))


def test_views_show_the_same_crop_where_positions_are_contrasted(config):
    gradient = torch.arange(64, dtype=torch.uint8).repeat(64, 1)
    pixels = torch.stack([gradient, gradient.T, gradient], dim=-1).repeat(4, 1, 1, 1) * 4
    still = replace(config, jitter=0.0, blur=0.0)
    first, second = make_views(still, 0, np.arange(4), pixels, None)[0].chunk(2)
    assert torch.equal(first, second)
    first, second = make_views(replace(still, dense_weight=0.0), 0, np.arange(4), pixels, None)[0].chunk(2)
    assert not torch.allclose(first, second, atol=0.05)
    views, masks = make_views(still, 0, np.arange(4), pixels, pixels)
    second, synthetic = views.chunk(3)[1:]
    assert torch.equal(second.movedim(1, -1)[~masks], synthetic.movedim(1, -1)[~masks])
    assert masks.flatten(1).any(1).all()


def test_learning_rate_rises_then_falls_to_zero(config):
    rates = [learning_rate_at(step / 100, config) for step in range(101)]
    assert max(rates) <= 1.02 * config.learning_rate
    assert rates[0] > 0 and rates[:10] == sorted(rates[:10]) and rates[11:] == sorted(rates[11:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_a_tenth_is_only_evaluated_on(demo_folder):
    fabric = make_fabric("cpu", "32-true")
    config, learned, unseen = prepared(Config(demo_folder, size_px=32, batch=8, hold_out=Names("bottle")), fabric)
    assert not {r.path for r in learned.records} & {r.path for r in unseen.records}
    assert len(learned) + len(unseen) == 24
    assert all((record.split, record.defect) == ("train", "good") for record in learned.records + unseen.records)
    assert config.hold_out == ("bottle",) and config.learning_rate == pytest.approx(1e-4)


def test_a_folder_that_the_user_calls_plain_is_learned_from_whole(tmp_path, capsys):
    MADE["table"](tmp_path)
    fabric, config = make_fabric("cpu", "32-true"), Config(tmp_path, size_px=32, batch=8)
    _, learned, unseen = prepared(replace(config, layout="plain"), fabric)
    assert len({record.path for record in learned.records + unseen.records}) == 8  # a mask is an image there
    _, learned, unseen = prepared(config, fabric)  # of the table, good ones that are not tested on
    assert {record.path.stem for record in learned.records + unseen.records} == set("01234")
    image(tmp_path / "photos" / "0.png")
    image(tmp_path / "photos" / "1.png")
    told, *_ = prepared(replace(config, data=tmp_path / "photos"), fabric)
    assert told.layout == "plain" and "learned from, as by --layout plain" in capsys.readouterr().out
    image(tmp_path / "photos" / "bad" / "2.png")
    with pytest.raises(UserError, match="those in bad too: name a folder of good images alone"):
        prepared(replace(config, data=tmp_path / "photos"), fabric)


def test_open_options_are_resolved_for_the_machine():
    config = resolved(Config(start="random", optimizer="lars", batch=64), "cpu", "32-true")
    assert (config.size_px, config.cache_px, config.batch, config.device) == (128, 256, 64, "cpu")
    assert config.learning_rate == pytest.approx(0.6) and not config.freeze_batch_norm
    # What was learned before is not to be forgotten.
    gentle = resolved(Config(optimizer="lars", batch=64), "cpu", "32-true")
    assert gentle.learning_rate == pytest.approx(0.06) and gentle.freeze_batch_norm


def test_a_folder_of_nothing_but_what_is_held_out_by_default_is_refused(tmp_path, demo_folder):
    """None left to learn from once meant all of them."""
    shutil.copytree(demo_folder / "bottle/train", tmp_path / "bottle/train")
    fabric, config = make_fabric("cpu", "32-true"), Config(tmp_path, size_px=32, batch=8)
    with pytest.raises(UserError, match=r"all categories of .* are held out \(bottle\): .* --hold-out ''"):
        prepared(config, fabric)
    _, learned_from, _ = prepared(replace(config, hold_out=Names("")), fabric)
    assert learned_from.categories == ["bottle"]


def test_too_few_images_are_refused(tmp_path, demo_folder):
    (tmp_path / "nut/train/good").mkdir(parents=True)
    shutil.copy(next(demo_folder.rglob("train/good/*.png")), tmp_path / "nut/train/good/0.png")
    with pytest.raises(UserError, match="too few"):
        prepared(Config(tmp_path, size_px=32, batch=8), make_fabric("cpu", "32-true"))
