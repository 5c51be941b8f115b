"""Labeled images that a head can learn from, without a file."""

from pathlib import Path

import torch

from baselines.contract.method import Sample


def sample(number: int, defect: str, category: str = "nut", copy_of: int | None = None) -> Sample:
    """Gray noise; a defective one has a red square somewhere."""
    seed = number if copy_of is None else copy_of
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 + 0.2 * torch.rand(3, 32, 32, generator=generator)
    if defect != "good":
        top, left = torch.randint(0, 20, (2,), generator=generator).tolist()
        image[:, top : top + 12, left : left + 12] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
    return Sample(image, int(defect != "good"), None, category, Path(f"data/{category}/test/{defect}/{number:03}.png"))


def training_samples() -> list[Sample]:
    """40 good ones, 20 with a red square."""
    return [sample(i, "good") for i in range(40)] + [sample(100 + i, "spot") for i in range(20)]
