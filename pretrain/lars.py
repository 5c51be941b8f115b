"""LARS on a GPU: lightly's, but for its questions whether a norm is zero, each of which makes the CPU wait."""

import torch
from lightly.utils.lars import LARS


class Lars(LARS):
    """The steps of lightly's LARS, to rounding, without nesterov and dampening."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                change = weights.grad
                if decay := group["weight_decay"]:
                    weight_norm, gradient_norm = torch.linalg.vector_norm(weights), torch.linalg.vector_norm(change)
                    ratio = weight_norm / (gradient_norm + weight_norm * decay + group["eps"])
                    is_usual = (weight_norm != 0) & (gradient_norm != 0)
                    # Weights that are all zero, or have no gradient, are neither scaled nor decayed.
                    scale = torch.where(is_usual, ratio * group["trust_coefficient"], 1.0)
                    change = (change + weights * torch.where(is_usual, decay, 0.0)) * scale
                state = self.state[weights]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = change.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(change)
                weights.add_(state["momentum_buffer"], alpha=-group["lr"])
