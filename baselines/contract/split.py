"""What a method that learns from labelled images holds out of them to stop in time."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.contract.method import Sample
from pretrain.command import UserError
from pretrain.data.images import GOOD, Record, split_records

# Of what a method is given: the study has taken its calibration part, 15 % of all, before.
VALIDATION = 0.15 / 0.85


class Parts(NamedTuple):
    """Positions of training images, disjoint, and labels float32 (n,) of all."""

    learning: list[int]
    validation: list[int]
    labels: Tensor


def parted(training: Sequence[Sample], seed: int) -> Parts:
    """Hold out images, stratified by category and defect; copies stay together. Raises UserError unless both good and
    defective ones are left to learn from."""
    records, digests, labels = [], [], []
    for sample in (training[i] for i in range(len(training))):
        kind = sample.path.parent.name if sample.label else GOOD
        records.append(Record(sample.path, sample.category, "", kind))
        digests.append(blake2b(sample.image.numpy().tobytes(), digest_size=16).digest())
        labels.append(float(sample.label))
    fractions = {"learning": 1 - VALIDATION, "validation": VALIDATION}
    parts = split_records(records, digests, digests, fractions, seed)
    if len({labels[i] for i in parts["learning"]}) < 2:
        raise UserError(
            f"{len(records)} images of the training categories hold no good ones or no defective ones: a head learns "
            "from both, so put labelled ones into CATEGORY/test/."
        )
    return Parts(parts["learning"], parts["validation"], torch.tensor(labels))
