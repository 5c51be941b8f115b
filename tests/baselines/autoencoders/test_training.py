"""The loop: what is held out teaches nothing, the best epoch counts, gone on is as if never stopped."""

import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from baselines.autoencoders.networks import make_network
from baselines.autoencoders.training import AutoEncoderRecipe, losses, recipe_of, split_positions, train
from pretrain.command import Stopped, UserError
from pretrain.training.run import Run
from pretrain.training.session import Session

IMAGES = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.3
RECIPE = AutoEncoderRecipe(epochs=4, batch=4, learning_rate=2e-3, augmentation="affine")
LEARNED, HELD_OUT = split_positions(12, 0)
open_session = partial(Session, "training")


def network(model: str = "vae") -> nn.Module:
    return make_network(model, 32, 3, 0, {"width": 4, "latent": 5})


def trained(recipe=RECIPE, run=None, images=IMAGES, held_out=HELD_OUT, model="vae", seed=0):
    opened = partial(open_session, run=run)
    return train(network(model), lambda chosen: images[chosen], LEARNED, held_out, recipe, seed, opened)


def vector(network: nn.Module) -> torch.Tensor:
    return torch.cat([part.float().flatten() for part in network.state_dict().values()])


def test_a_tenth_is_held_out():
    for count, expected in ((1, 0), (2, 1), (10, 1), (19, 2), (200, 20)):
        learned, held_out = split_positions(count, 3)
        assert len(held_out) == expected and sorted(learned + held_out) == list(range(count))
    assert split_positions(50, 0) != split_positions(50, 1)


def test_same_seed_same_weights_whatever_the_global_generator():
    torch.manual_seed(1)
    first = vector(trained())
    torch.manual_seed(2)
    assert torch.equal(first, vector(trained()))
    assert not torch.equal(first, vector(trained(seed=1)))


def test_minutes_are_turned_into_epochs_and_never_into_more(tmp_path, monkeypatch):
    """Of a training that is no other for having been timed."""

    def learned(minutes: float, run: Run | None) -> torch.Tensor:
        opened = partial(open_session, run=run)
        return vector(train(network(), IMAGES.__getitem__, LEARNED, HELD_OUT, RECIPE, 0, opened, minutes=minutes))

    assert torch.equal(learned(60, Run(tmp_path / "all")), vector(trained()))
    seconds = iter(range(0, 10**6, 6))  # by a clock that leaves time for two epochs
    monkeypatch.setattr("pretrain.training.session.time.monotonic", lambda: next(seconds))
    fewer = Run(tmp_path / "fewer")
    steps_in_epoch = RECIPE.steps_in_epoch(len(LEARNED))
    learned((30 + 6 * (2 * steps_in_epoch + 1)) / 60, fewer)  # with what timing takes
    monkeypatch.undo()
    assert [line["epoch"] for line in fewer.metrics() if "epoch" in line] == [0, 1]


def test_an_epoch_that_is_longer_than_the_minutes_is_not_taken_to_time_it():
    batches: list[list[int]] = []

    def images(positions: list[int]) -> torch.Tensor:
        batches.append([position for position in positions if position in LEARNED])
        return IMAGES[positions]

    short = replace(RECIPE, batch=2)
    train(network(), images, LEARNED, HELD_OUT, short, 0, open_session, minutes=1e-9)
    assert len([batch for batch in batches if batch]) == 2 + short.steps_in_epoch(len(LEARNED))


def test_what_is_held_out_teaches_nothing():
    one_epoch = replace(RECIPE, epochs=1)
    scribbled = IMAGES.clone()
    scribbled[HELD_OUT] = 1 - scribbled[HELD_OUT]
    assert torch.equal(vector(trained(one_epoch)), vector(trained(one_epoch, images=scribbled)))
    scribbled[LEARNED[0]] = 0
    assert not torch.equal(vector(trained(one_epoch)), vector(trained(one_epoch, images=scribbled)))


def test_the_best_epoch_counts(tmp_path):
    run = Run(tmp_path)
    best = trained(replace(RECIPE, epochs=8, learning_rate=0.05), run, model="ae")
    validation = [line["validation"] for line in run.metrics() if "validation" in line]
    assert len(validation) == 8 and validation.index(min(validation)) < 7  # so fast that it gets worse again
    with torch.no_grad():
        again = losses(best, IMAGES[HELD_OUT], RECIPE).mean()
    assert float(again) == pytest.approx(min(validation), rel=1e-5)


def test_without_any_held_out_the_last_epoch_counts():
    assert not torch.equal(vector(trained(held_out=[])), vector(network().eval()))


@pytest.mark.parametrize("after", [1, 2, 5])
@pytest.mark.parametrize("model", ["ae", "vae"])
def test_stopped_and_gone_on_is_uninterrupted(model, after, tmp_path):
    whole = vector(trained(model=model))

    def images(chosen):
        images.batches += 1
        if images.batches == after + (after - 1) // 2:  # every second step a batch is also held out
            signal.raise_signal(signal.SIGTERM)
        return IMAGES[chosen]

    images.batches = 0
    with pytest.raises(Stopped, match=f"stopped after {after} of 8 steps"):
        train(network(model), images, LEARNED, HELD_OUT, RECIPE, 0, partial(open_session, run=Run(tmp_path)))
    assert torch.equal(vector(trained(run=Run(tmp_path), model=model)), whole)
    assert [line["step"] for line in Run(tmp_path).metrics() if "loss" in line] == list(range(8))


def test_a_plateau_halves_the_rate_and_ends_the_training_in_the_end(tmp_path):
    run, still = Run(tmp_path), replace(RECIPE, epochs=50, learning_rate=1e-9, plateau=2, patience=5)
    frozen = network("ae")
    for part in frozen.modules():  # nothing moves, so nothing improves but by rounding
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.0
    train(frozen, lambda chosen: IMAGES[chosen], LEARNED, HELD_OUT, still, 0, partial(open_session, run=run))
    lines = [line for line in run.metrics() if "validation" in line]
    rates = [line["learning_rate"] for line in lines]
    assert len(lines) < 50 and rates[0] == 1e-9 and rates[-1] in (0.25e-9, 0.125e-9, 0.0625e-9)
    assert all(later in (rate, rate / 2) for rate, later in zip(rates, rates[1:], strict=False))


def test_a_training_that_ended_early_is_over_when_it_resumes(tmp_path):
    """Killed between its last step and its end: it takes no further step."""
    recipe = replace(RECIPE, epochs=50, learning_rate=1e-9, patience=1)
    best = vector(trained(recipe, Run(tmp_path), model="ae"))
    steps = len([line for line in Run(tmp_path).metrics() if "loss" in line])
    saved = partial(open_session, run=Run(tmp_path), checkpoint_minutes=0)
    train(network("ae"), lambda chosen: IMAGES[chosen], LEARNED, HELD_OUT, recipe, 0, saved)
    again = vector(trained(recipe, Run(tmp_path), model="ae"))
    assert torch.equal(again, best)
    assert len([line for line in Run(tmp_path).metrics() if "loss" in line]) == steps < 100


def test_a_pretrained_backbone_is_frozen_at_first(tmp_path):
    recipe = replace(RECIPE, epochs=2, frozen=0.5, augmentation="none")
    images = IMAGES.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def stages(epochs):
        fresh = make_network("backbone", 64, 3, 0, {})
        before, head = vector(fresh.stages), vector(fresh.up)
        one = replace(recipe, epochs=epochs, frozen=0.5 * 2 / epochs)
        # Without held-out images the last epoch counts.
        after = train(fresh, lambda chosen: images[chosen], LEARNED, [], one, 0, open_session)
        return torch.equal(before, vector(after.stages)), torch.equal(head, vector(after.up))

    assert stages(1) == (True, False)
    assert stages(2) == (False, False)


def test_divergence_weighs_as_one_squared_error_summed_over_pixels():
    vae, images = network().eval(), IMAGES[:2]
    restored, divergence = vae.sampled(images, torch.zeros(2, 5))
    errors = (restored - images).square()
    expected = errors.mean((1, 2, 3)) + divergence / images[0].numel()
    torch.testing.assert_close(losses(vae, images, RECIPE), expected)
    summed = losses(vae, images, replace(RECIPE, loss="l2"))
    torch.testing.assert_close(summed, errors.sum((1, 2, 3)) + divergence)
    torch.testing.assert_close(summed, expected * images[0].numel())


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="not a number any more at step 0"):
        trained(images=torch.full_like(IMAGES, torch.nan))


def test_recipes_are_those_published():
    plain, family, line = recipe_of("vae"), recipe_of("mvtec2"), recipe_of("inspection")
    assert (plain.epochs, plain.batch, plain.learning_rate, plain.loss) == (100, 32, 1e-3, "mse")
    assert (family.learning_rate, family.weight_decay, family.loss, family.augmentation) == (
        2e-4,
        1e-5,
        "ssim",
        "affine",
    )
    assert (line.epochs, line.batch, line.learning_rate, line.plateau, line.patience) == (50, 16, 1e-4, 5, 10)
    assert recipe_of("backbone", True).frozen == 0.6 and recipe_of("backbone", False).frozen == 0
    assert recipe_of("ae", given={"epochs": 3, "loss": None}).epochs == 3


def test_instances_become_epochs():
    assert RECIPE.lasting(180, 1000).epochs == 5
    assert RECIPE.lasting(180, None).epochs == 4
    assert RECIPE.lasting(3, None, min_steps=300).epochs == 300
    with pytest.raises(UserError, match="less than one look"):
        RECIPE.lasting(180, 100)
