"""What confirmed defects of one product look like, learned from a few of them: a logistic head on patches.

A patch is read by what is left of it when the nearest normal one is taken away, with its sign and without. Where an
operator drew the defect, patches under the drawing teach; else those of the image that look most like one, which are
chosen anew as the head learns (multiple-instance learning, MI-SVM of Andrews et al. 2002).

What a head says counts only above what it says of good images that it was not trained on, and never more than `reach`:
so that a head that tells nothing apart adds nothing, and what one that errs can add is bounded.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Of each image, of patches (p,): a head is trained on those of a defect, or on so many of the strangest.
INSTANCE_SHARE, FEWEST_INSTANCES = 0.01, 4
# Of all good images, an equal share of each: half of them the strangest, half drawn.
GOOD_PATCHES = 4096
ROUNDS, FOLDS = 3, 4
# Screened on five products, 16 of each kind said: .883 balanced accuracy; .867 with a ridge of .01 and the patches
# themselves among the inputs, which take twice the time.
RIDGE, NEWTON_STEPS = 1.0, 10
# What a share of good images, each judged by heads that were not trained on it, stays below counts nothing.
CLEAR_SHARE = 0.7
# Fewer defective images say nothing of the next one.
FEWEST_DEFECTIVE = 3


class Patches(NamedTuple):
    """Images as a head sees them: `inputs` (n, p, c), how strange the statistics find each patch (n, p), and where a
    defect was drawn, bool (n, p), nowhere in an image without a drawing."""

    inputs: Tensor
    strangeness: Tensor
    drawn: Tensor


class Evidence(NamedTuple):
    """A head: what it says of a patch is a weighted sum, `weights` (c + 1,), the last is added. Up to `low` that counts
    nothing, from `high` on `reach`, in between as much as it lies above."""

    weights: Tensor
    low: float
    high: float
    reach: float

    def of(self, inputs: Tensor) -> Tensor:
        """What is added to the strangeness of patches (..., c): (...,), from 0 to `reach`."""
        return self.counted(said(inputs, self.weights))

    def counted(self, logits: Tensor) -> Tensor:
        return self.reach * ((logits - self.low) / (self.high - self.low)).clamp(0, 1)


def said(inputs: Tensor, weights: Tensor) -> Tensor:
    return inputs @ weights[:-1] + weights[-1]


def inputs_of(patches: Tensor, nearest: Tensor) -> Tensor:
    """What a head reads of patches (..., d), given the nearest normal ones: (..., c)."""
    residuals = patches - nearest
    return torch.cat([residuals, residuals.abs()], dim=-1)


def learn_evidence(good: Patches, defective: Patches, reach: float, seed: int) -> tuple[Evidence | None, Tensor]:
    """The head, and what heads that did not see the image say of the patches of each good one, (n, p): in turn a fourth
    of the images is left out of training. None, and zeros, where defective ones that were left out say no more than
    good ones do."""
    nothing = torch.zeros_like(good.strangeness)
    if len(defective.inputs) < FEWEST_DEFECTIVE or len(good.inputs) < FOLDS:
        return None, nothing
    logits, peaks = torch.empty_like(good.strangeness), []
    for fold in range(FOLDS):
        left, kept = (_fold(len(good.inputs), fold), _fold(len(defective.inputs), fold))
        weights = _trained(_rows(good, ~left), _rows(defective, ~kept), seed)
        logits[left] = said(good.inputs[left], weights)
        peaks.append(peak(said(defective.inputs[kept], weights)))
    low, high = float(peak(logits).quantile(CLEAR_SHARE)), float(torch.cat(peaks).median())
    if high <= low:
        return None, nothing
    evidence = Evidence(_trained(good, defective, seed), low, high, reach)
    return evidence, evidence.counted(logits)


def peak(values: Tensor) -> Tensor:
    """The mean of the highest of each image's patches (n, p): (n,)."""
    return values.topk(_instances(values.shape[1]), dim=1).values.mean(1)


def _instances(patches: int) -> int:
    return min(patches, max(FEWEST_INSTANCES, round(INSTANCE_SHARE * patches)))


def _fold(count: int, fold: int) -> Tensor:
    return torch.arange(count) % FOLDS == fold


def _rows(patches: Patches, chosen: Tensor) -> Patches:
    return Patches(*(part[chosen] for part in patches))


def _trained(good: Patches, defective: Patches, seed: int) -> Tensor:
    """A head's weights (c + 1,)."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, min(GOOD_PATCHES // len(good.inputs), good.strangeness.shape[1]) // 2)
    drawn = torch.rand(good.strangeness.shape, generator=generator).topk(count, dim=1).indices
    chosen = torch.cat([good.strangeness.topk(count, dim=1).indices, drawn], dim=1)
    negatives = torch.cat([image[rows] for image, rows in zip(good.inputs, chosen, strict=True)])
    weights, by_image = None, defective.strangeness
    for _ in range(ROUNDS):
        positives = [_instances_of(defective, i, by_image[i]) for i in range(len(by_image))]
        inputs = torch.cat([negatives, *positives])
        labels = torch.cat([torch.zeros(len(negatives)), torch.ones(len(inputs) - len(negatives))])
        # Both kinds weigh the same, and so does each defective image, however large its defect.
        each = [torch.full((len(part),), 1 / len(part) / len(positives)) for part in positives]
        sample_weights = torch.cat([torch.full((len(negatives),), 1 / len(negatives)), *each])
        weights = logistic(inputs, labels, sample_weights, RIDGE)
        if defective.drawn.any(1).all():
            break
        by_image = said(defective.inputs, weights)
    return weights


def _instances_of(images: Patches, position: int, values: Tensor) -> Tensor:
    """The patches (n, c) of a defective image that teach."""
    drawn = images.drawn[position]
    if drawn.any():
        return images.inputs[position][drawn]
    return images.inputs[position][values.topk(_instances(len(values))).indices]


def logistic(inputs: Tensor, labels: Tensor, sample_weights: Tensor, ridge: float) -> Tensor:
    """Weights (c + 1,), the last is added, that tell inputs (n, c) apart by labels (n,), by Newton's method. `ridge`
    pulls all but the last towards 0, with inputs in units of their spread."""
    center, spread = inputs.mean(0), inputs.std(0) + 1e-6
    scaled = torch.cat([(inputs - center) / spread, torch.ones(len(inputs), 1)], dim=1).double()
    pull = torch.full((scaled.shape[1],), ridge, dtype=torch.float64)
    pull[-1] = 1e-6
    weights = torch.zeros_like(pull)
    labels, sample_weights = labels.double(), sample_weights.double()
    for _ in range(NEWTON_STEPS):
        chance = torch.sigmoid(scaled @ weights)
        slope = scaled.T @ (sample_weights * (chance - labels)) + pull * weights
        bend = (scaled * (sample_weights * chance * (1 - chance))[:, None]).T @ scaled + pull.diag()
        step = torch.linalg.solve(bend, slope)
        weights = weights - step.clamp(-3, 3)
        if step.abs().max() < 1e-4:
            break
    own = weights[:-1] / spread.double()
    return torch.cat([own, weights[-1:] - (own @ center.double())[None]]).float()
