"""The recipe's learning rate, and weights that join later."""

import pytest
import torch
from torch import nn

from baselines.restoration.pairs import PairBatch
from baselines.restoration.training import ParameterGroup, RestorerRecipe, RestorerTraining
from pretrain.command import UserError


@pytest.mark.parametrize("half_cosines", [1, 5])
def test_the_rate_warms_up_and_ends_at_zero(half_cosines):
    recipe = RestorerRecipe(warmup=0.1, half_cosines=half_cosines)
    assert recipe.rate_at(0.0) == 0.01 and recipe.rate_at(0.05) == pytest.approx(0.51)
    assert recipe.rate_at(0.1) == 1 and recipe.rate_at(1.0) == pytest.approx(0)
    halves = [recipe.rate_at(0.1 + 0.9 * number / half_cosines) for number in range(half_cosines + 1)]
    assert halves == pytest.approx([1, 0] * ((half_cosines + 1) // 2))


class TwoParts(nn.Module):
    """Its second part is trained from half of the training on, at a tenth of the rate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def groups(self):
        return [ParameterGroup(list(self.first.parameters())), ParameterGroup(list(self.second.parameters()), 0.1, 0.5)]

    def forward(self, images):
        return self.second(self.first(images))


def test_a_group_joins_when_its_share_of_the_training_begins():
    asked = []

    def source(numbers):
        asked.append(list(numbers))
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(len(asked)))
        return PairBatch(images, images.flip(-1), torch.zeros(2, 8, 8, dtype=torch.bool))

    training = RestorerTraining(TwoParts(), source, RestorerRecipe(steps=4, batch_size=2, learning_rate=0.1))
    before = training.network.second.weight.clone()
    for number in range(4):
        figures = training.train_step(number)
        assert torch.equal(training.network.second.weight, before) == (number < 2)
    assert asked == [[0, 1], [2, 3], [4, 5], [6, 7]]
    rates = [group["lr"] for group in training.optimizer.param_groups]
    assert rates == pytest.approx([figures["learning_rate"], 0.1 * figures["learning_rate"]])
    assert set(figures) == {"loss", "learning_rate"}


def test_recipes_that_teach_nothing_are_refused():
    for options, match in (({"steps": 0}, "steps must be above 0"), ({"warmup": 1.0}, "no share"),
                           ({"half_cosines": 2}, "give 1, 3 or 5")):  # fmt: skip
        with pytest.raises(UserError, match=match):
            RestorerRecipe(**options).check()
