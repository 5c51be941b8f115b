"""Residuals: each patch minus the nearest normal one, read by a network that was trained on other categories.

A residual no longer says what the product is, only what is wrong with it: what was learned of defects of some products
holds for others (ResAD, Yao et al. 2024, https://arxiv.org/abs/2410.20047). The network is trained on
synthetic anomalies, and on real ones where the training categories have masks; of the category it is used on it needs
normals alone.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract.method import LEARNING_BATCH, NotFitted, Sample
from downstream.methods.patchcore import PatchCore
from pretrain.anomalies import add_anomaly
from pretrain.command import UserError
from pretrain.progress import Progress

# Of each training category.
MAX_REFERENCES, MAX_LEARNED_FROM = 16, 48
# A patch is defective if a mask covers this share of it, good if none of it, and else not learned from.
DEFECTIVE_SHARE = 0.25
MIN_GOOD_PATCHES = 24  # of each image
STEPS, PATCHES_PER_STEP = 400, 2048
MAX_FOR_UNITS = 32  # normals that say what residuals are usual
LEARNED_ELSEWHERE = ("network_", "center_of_inputs_", "spread_of_inputs_")
# Residuals in units of what normals show; above this, all count alike.
MAX_UNITS = 20.0


@dataclass(kw_only=True, eq=False, repr=False)
class Residual(PatchCore):
    """A coreset in which each patch finds its nearest normal one, and a small network that reads the difference.

    Differences are taken channel by channel, of all channels of the levels, without their sign and in units of what the
    category's normals show when each is left out; so they mean the same in every category. `hidden` is the network's
    width, 0 for a weighted sum.
    """

    coreset_ratio: float = 0.02
    hidden: int = 32

    def fit(self, training: Sequence[Sample]) -> Self:
        """Train the network on normals of other categories, clean and with synthetic anomalies, and on real defects
        that have masks; defective images without a mask teach it nothing. Raises UserError without normals."""
        self._forget()
        normals, defective = defaultdict(list), defaultdict(list)
        for position, sample in enumerate(training):
            if not sample.label:
                normals[sample.category].append(position)
            elif sample.mask is not None:
                defective[sample.category].append(position)
        usable = [category for category, positions in normals.items() if len(positions) > 1]
        if not usable:
            raise UserError("no other category with two or more good images: a residual method learns from others.")
        lessons = []
        with Progress("learning from other categories", len(usable), "categories") as progress:
            for number, category in enumerate(usable):
                lessons += self._lessons(training, normals[category], defective[category], number)
                progress.advance()
        inputs, labels = (torch.cat(part) for part in zip(*lessons, strict=True))
        self.center_of_inputs_, self.spread_of_inputs_ = inputs.mean(0), inputs.std(0) + 1e-6
        network = trained_network(self._scaled(inputs), labels, self.hidden, self.seed)
        self.network_ = nn.utils.parameters_to_vector(network.parameters()).detach()
        return self

    def _lessons(
        self, training: Sequence[Sample], normals: Sequence[int], defective: Sequence[int], number: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (n, c) and labels (n,) of patches of one category, against references of its own."""
        order = np.random.default_rng([self.seed, number]).permutation(normals).tolist()
        count = min(MAX_REFERENCES, len(order) // 2)
        elsewhere = copy.copy(self)
        elsewhere.look_within(None)._forget_normals()
        elsewhere._take_in([training[i].image for i in order[:count]])
        learners = order[count : count + MAX_LEARNED_FROM]
        for start in range(0, len(learners), LEARNING_BATCH):
            batch = learners[start : start + LEARNING_BATCH]
            clean = torch.stack([training[i].image for i in batch])
            synthetic, masks = add_anomaly(
                clean, clean.roll(1, 0), self.seed, number, np.arange(start, start + len(batch))
            )
            yield elsewhere._training_patches(clean, torch.zeros_like(masks))
            yield elsewhere._training_patches(synthetic, masks)
        for position in defective[:MAX_LEARNED_FROM]:
            yield elsewhere._training_patches(training[position].image[None], training[position].mask[None])

    def _training_patches(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Of images and masks (b, h, w): inputs of all defective patches and of as many good ones, at least a few."""
        vectors = self.patches(images)
        cover = F.adaptive_avg_pool2d(masks[:, None].float(), vectors.shape[1:3]).flatten().to(self.device)
        is_defective, is_good = cover >= DEFECTIVE_SHARE, torch.nonzero(cover == 0)[:, 0]
        count = max(int(is_defective.sum()), MIN_GOOD_PATCHES * len(images))
        generator = torch.Generator().manual_seed(self.seed)
        good = is_good[torch.randperm(len(is_good), generator=generator)[:count].to(self.device)]
        chosen = torch.cat([torch.nonzero(is_defective)[:, 0], good])
        flat = vectors.flatten(0, 2)[chosen]
        return self._inputs(flat, *self._nearest(flat)), is_defective[chosen].float()

    def _learn(self, normals: Sequence[Tensor]) -> None:
        if not hasattr(self, "network_"):
            raise NotFitted("Residual has learned of no other category yet: call fit first.")
        self._take_in(normals)
        self._score_normals(normals, self._left_out(normals))

    def _take_in(self, normals: Sequence[Tensor]) -> None:
        """The coreset, its patches as they are, and the units that residuals are in: the mean of each channel over up
        to MAX_FOR_UNITS normals, each left out; of a single one, over one half of the coreset compared with the
        other."""
        candidates, owners = self._candidates(self._views_of_normals(normals), len(normals))
        self.coreset_features_ = candidates[self._choose_coreset(candidates, owners)]
        usual = []
        for own in self._left_out(normals)[:MAX_FOR_UNITS]:
            total, count = 0.0, 0
            for band in self._bands(normals[own][None]):
                (patches,) = self.region.inside(band)
                nearest = self._nearest_without(self._projected(patches), own)
                total, count = total + self._raw_inputs(patches, *nearest).sum(0), count + len(patches)
            usual.append(total / count)
        if not usual:
            half, other = torch.arange(len(self.coreset_), device=self.device).tensor_split(2)
            nearest = self._nearest_among(self.coreset_[other], half)
            usual.append(self._raw_inputs(self.coreset_features_[other], *nearest).mean(0))
        self.units_of_inputs_ = torch.stack(usual).mean(0).clamp(min=1e-9)

    def _patch_scores(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """The evidence of a defect, above that of no residual at all: 0 or more, as the network never falls."""
        with torch.inference_mode():
            with torch.device(self.device):  # made there: what is sent there makes a GPU be waited for
                network = MonotoneNetwork(len(self.units_of_inputs_), self.hidden)
            network.take(self.network_)
            inputs = self._inputs(vectors, distances, rows)
            return network(self._scaled(inputs)) - network(self._scaled(torch.zeros_like(inputs[:1])))

    def _inputs(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """What the network reads of patches (n, c), given their nearest: (n, c + 1)."""
        units = self._raw_inputs(vectors, distances, rows) / self.units_of_inputs_
        return units.clamp(max=MAX_UNITS).log1p()

    def _raw_inputs(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """Residuals of all channels, and how far the patch is from the coreset: (n, c + 1)."""
        return torch.cat([(vectors - self.coreset_features_[rows[:, 0]]).abs(), distances[:, :1]], dim=1)

    def _scaled(self, inputs: Tensor) -> Tensor:
        return (inputs - self.center_of_inputs_) / self.spread_of_inputs_

    def _forget_normals(self) -> None:
        learned = {name: value for name, value in vars(self).items() if name in LEARNED_ELSEWHERE}
        self._forget()
        vars(self).update(learned)


class MonotoneNetwork(nn.Module):
    """Reads residuals (n, c) and gives evidence of a defect (n,). It never falls where a residual grows: its weights
    are kept above 0, so that what it has not seen in training cannot count as good."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        widths = [inputs, hidden, 1] if hidden else [inputs, 1]
        self.weights = nn.ParameterList(torch.zeros(after, before) for before, after in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(after) for after in widths[1:])

    def draw(self, generator: torch.Generator) -> None:
        """First weights: about one over the number of inputs, each a little different."""
        for weight in self.weights:
            weight.data = torch.rand(weight.shape, generator=generator) - math.log(weight.shape[1])

    def take(self, weights: Tensor) -> None:
        """All weights from one vector, as `nn.utils.parameters_to_vector` makes it."""
        own = list(self.parameters())
        for parameter, part in zip(own, weights.split([each.numel() for each in own]), strict=True):
            parameter.copy_(part.view_as(parameter))

    def forward(self, inputs: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs = F.linear(F.relu(inputs) if number else inputs, weight.exp(), bias)
        return inputs[:, 0]


def trained_network(inputs: Tensor, labels: Tensor, hidden: int, seed: int) -> MonotoneNetwork:
    """A network that tells patches (n, c) apart by their labels (n,), both kinds weighing the same."""
    generator = torch.Generator().manual_seed(seed)
    network = MonotoneNetwork(inputs.shape[1], hidden)
    network.draw(generator)
    network.to(inputs.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.03, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    share = labels.mean().clamp(1e-3, 1 - 1e-3)
    for _ in range(STEPS):
        batch = torch.randint(len(inputs), (PATCHES_PER_STEP,), generator=generator).to(inputs.device)
        weights = torch.where(labels[batch] > 0, 0.5 / share, 0.5 / (1 - share))
        F.binary_cross_entropy_with_logits(network(inputs[batch]), labels[batch], weights).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network
