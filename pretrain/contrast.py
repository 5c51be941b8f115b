"""SimCLR as one module: an encoder, its projection heads, and the loss of a batch of views."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.command import UserError
from pretrain.dense import DenseContrast, Places
from pretrain.encoder import Encoder
from pretrain.loss import nt_xent

DENSE_LEVELS = ("level2", "level3")


class Losses(NamedTuple):
    """Scalars: `loss` to descend, its two parts, and how often a view's other view was the nearest of all."""

    loss: Tensor
    whole: Tensor
    dense: Tensor
    accuracy: Tensor


class SimCLR(nn.Module):
    """The encoder with SimCLR's projection head for whole images, and one for the places of the middle levels."""

    def __init__(self, encoder: Encoder, whole_weight: float, dense_weight: float, temperature: float) -> None:
        from lightly.models.modules.heads import SimCLRProjectionHead

        super().__init__()
        width = encoder.channels["level4"]
        self.encoder = encoder
        self.projection = SimCLRProjectionHead(width, width, 128)
        self.dense = DenseContrast({level: encoder.channels[level] for level in DENSE_LEVELS})
        self.whole_weight, self.dense_weight, self.temperature = whole_weight, dense_weight, temperature
        # What a weight of zero leaves out gets no gradient, and DDP must not wait for one.
        if not whole_weight:
            self.projection.requires_grad_(False)
            encoder.stages["level4"].requires_grad_(False)
        if not dense_weight:
            self.dense.requires_grad_(False)

    def forward(
        self, views: Tensor, masks: Tensor | None, seed: int, step: int, positions: Sequence[int] | np.ndarray
    ) -> Losses:
        """`views` float32 (2b or 3b, 3, h, w): two views of b crops and, with `masks` bool (b, h, w), the second one
        with synthetic anomalies. All of them in one pass, so that batch normalization tells none of them apart."""
        places = Places(seed, step, positions, views.device)
        none = views.new_zeros(())
        whole = dense = accuracy = none
        features = self.encoder(views, (*DENSE_LEVELS, "level4") if self.whole_weight else DENSE_LEVELS)
        if self.whole_weight:
            projected = self.projection(features["level4"].mean((2, 3)))
            first, second, *synthetic = projected.split(len(places.chance))
            whole, accuracy = nt_xent(first, second, self.temperature, synthetic[0] if synthetic else None)
        if self.dense_weight:
            dense, dense_accuracy = self.dense(features, masks, places, self.temperature)
            accuracy = accuracy if self.whole_weight else dense_accuracy
        loss = self.whole_weight * whole + self.dense_weight * dense
        return Losses(loss, whole.detach(), dense.detach(), accuracy)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Weights decay; what is one number a channel does not: biases, normalization, ConvNeXt's scales (c, 1, 1)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.squeeze().ndim > 1]
    vectors = [parameter for parameter in trained if parameter.squeeze().ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def make_optimizer(name: str, module: nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """adamw, sgd or lars, for what `module` trains."""
    groups = parameter_groups(module, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    from lightly.utils.lars import LARS

    # It leaves out of its layer-wise scaling whatever does not decay: biases and batch normalization, as it should.
    if not weight_decay:
        raise UserError(
            "lars scales only what decays: give a --weight-decay above 0, such as 1e-6, or --optimizer sgd."
        )
    return LARS(groups, lr=rate, momentum=0.9)
