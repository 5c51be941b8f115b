"""What a training keeps that may become worse again: the weights of its best evaluation so far."""

import copy

from torch import nn


class BestWeights(nn.Module):
    """A network in training, and a copy of it as it was at its best evaluation, which counts in the end.

    One module, so that a checkpoint holds both: a training that is killed resumes with the best weights of before.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.best = copy.deepcopy(network).requires_grad_(False)

    def keep(self) -> None:
        """The network as it is now is the best so far."""
        self.best.load_state_dict(self.network.state_dict())
