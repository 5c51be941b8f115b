"""The validation part that a method holds out of its labeled images, to stop training in time."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.contract.method import Sample
from pretrain.command import UserError
from pretrain.data.images import GOOD, Record, split_records

# 15 % of all labeled images: the study has taken its calibration part, another 15 %, before a method gets the rest.
VALIDATION_SHARE = 0.15 / 0.85


class Split(NamedTuple):
    """Positions of labeled images to train on and to validate with, disjoint, and labels float32 (n,) of all."""

    train: list[int]
    validation: list[int]
    labels: Tensor


def split_samples(samples: Sequence[Sample], seed: int) -> Split:
    """Hold out images, stratified by category and defect; copies stay together. Raises UserError unless both good and
    defective ones are left to train on."""
    records, digests, labels = [], [], []
    # By position: a lazy sequence decodes one image at a time, and only what is kept of it stays in memory.
    for sample in (samples[i] for i in range(len(samples))):
        defect = sample.path.parent.name if sample.label else GOOD
        records.append(Record(sample.path, sample.category, "", defect))
        digests.append(blake2b(sample.image.numpy().tobytes(), digest_size=16).digest())
        labels.append(float(sample.label))
    shares = {"train": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}
    parts = split_records(records, digests, digests, shares, seed)
    if len({labels[i] for i in parts["train"]}) < 2:
        raise UserError(
            f"{len(records)} images of the training categories hold no good ones or no defective ones: a classifier "
            "learns from both, so put labeled ones into CATEGORY/test/."
        )
    return Split(parts["train"], parts["validation"], torch.tensor(labels))
