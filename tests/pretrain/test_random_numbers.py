"""Random numbers without a state."""

import torch

from pretrain.random_numbers import uniforms


def test_uniforms_are_uniform_and_independent():
    values = torch.from_numpy(uniforms(range(4000), 8, 1, 2, "test"))
    assert values.min() >= 0 and values.max() < 1
    # Standard errors: the mean 0.0016, the variance 0.0004, a correlation 0.016 per pair.
    assert (values.mean(dim=0) - 0.5).abs().max() < 0.02
    assert (values.var(dim=0) - 1 / 12).abs().max() < 0.005
    assert (torch.corrcoef(values.T) - torch.eye(8)).abs().max() < 0.08
    assert torch.corrcoef(torch.stack((values[:-1, 0], values[1:, 0])))[0, 1].abs() < 0.08
