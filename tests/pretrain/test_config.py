"""The recipes, and what is refused before anything is opened."""

import pytest

from pretrain.command import UserError
from pretrain.config import RECIPES, Config, Strengths, check


def test_the_paper_s_recipe_has_the_paper_s_augmentations():
    """arXiv 2002.05709, appendix A: s = 1, so 0.8, 0.8, 0.8 and 0.2; gray with 0.2, blur with 0.5, crops from 8 %."""
    assert Config(recipe="simclr").strengths == Strengths()
    config = Config(recipe="simclr")
    assert (config.optimizer, config.temperature, config.weight_decay) == ("lars", 0.1, 1e-6)
    assert (config.image_weight, config.dense_weight) == (1.0, 0.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_complete_and_what_was_typed_wins(recipe):
    config = Config(recipe=recipe)
    assert all(getattr(config, name) == value for name, value in RECIPES[recipe].items())
    typed = Config(recipe=recipe, temperature=0.7, dense_weight=0.0, image_weight=1.0)
    assert (typed.temperature, typed.dense_weight, typed.jitter) == (0.7, 0.0, config.jitter)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_pass_their_own_checks(recipe):
    check(Config(recipe=recipe))


def test_what_teaches_nothing_is_refused():
    with pytest.raises(UserError, match="--temperature must be above 0, not -1"):
        check(Config(temperature=-1.0))
    with pytest.raises(UserError, match="nothing to learn"):
        check(Config(image_weight=0.0, dense_weight=0.0))
    with pytest.raises(UserError, match="--freeze-stages must be from 0 to 3, not 4"):
        check(Config(freeze_stages=4))
    with pytest.raises(UserError, match="would keep the start: freeze 2, or add --keep last"):
        check(Config(freeze_stages=3))
    check(Config(freeze_stages=3, keep="last"))


def test_maps_that_cannot_be_kept_are_refused():
    check(Config(freeze_stages=2, cached_views=4))
    with pytest.raises(UserError, match="add --freeze-stages"):
        check(Config(cached_views=4))
    with pytest.raises(UserError, match="cannot go on from maps of its first stages"):
        check(Config(freeze_stages=2, cached_views=4, architecture="timm/test_resnet"))
    with pytest.raises(UserError, match="--synthetic-negatives borrow"):
        check(Config(freeze_stages=2, cached_views=4, synthetic_negatives=True))
