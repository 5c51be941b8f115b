"""Options of restorers: lengths and seeds that cannot be used."""

import pytest

from baselines.restoration.config import Train, check_length
from pretrain.command import UserError


@pytest.mark.parametrize("name", ["epochs", "steps", "minutes", "checkpoint_minutes"])
def test_a_length_must_be_above_zero(name):
    for value in (0, -1, float("nan")):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be above 0"):
            check_length(Train(**{name: value}))
    check_length(Train(**{name: 1}))


def test_a_seed_must_not_be_negative():
    with pytest.raises(UserError, match="--seed must be 0 or more, not -1"):
        check_length(Train(seed=-1))
