"""What frozen layers make of each training image, computed once and kept on disk.

Where the first layers of a network are frozen and images are not varied, these layers give the same in every epoch.
VGG16's ten frozen convolutions take four fifths of a training step; what they give, after the pooling that follows,
is 0.4 MB an image of 224 px. It is kept in fp32: halves would be half as large, and another result.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.command import UserError
from pretrain.files import whole_file
from pretrain.progress import Progress


class FrozenFeatures:
    """The result of `early` for images 0 to `count` - 1, in a file of float32 that is mapped, not read into memory.

    `early` takes positions and gives (b, ...), without a gradient. It is asked for `batch` images at a time; of the
    last, if they are fewer, the batch is filled with its first, so that every image is computed alike. A `file` of
    that size that is there already is taken as it is: its name must say what it was made of.
    """

    def __init__(self, early: Callable[[Sequence[int]], Tensor], count: int, file: Path, batch: int) -> None:
        self.file = file
        with torch.no_grad():
            self.shape = (count, *early([0]).shape[1:])
        if not file.exists() or file.stat().st_size != 4 * np.prod(self.shape):
            self._compute(early, min(batch, count))
        self.mapped = np.memmap(file, np.float32, "r", shape=self.shape)

    def __call__(self, positions: Sequence[int]) -> Tensor:
        """Copies of the results for some images: float32 (b, ...)."""
        return torch.from_numpy(self.mapped[np.asarray(positions)])

    def _compute(self, early: Callable[[Sequence[int]], Tensor], batch: int) -> None:
        count, size = self.shape[0], 4 * int(np.prod(self.shape))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.file.parent).free
        if free < size:
            raise UserError(
                f"{self.file.parent} has {free / 1e6:.0f} MB left and the frozen layers' results take "
                f"{size / 1e6:.0f} MB: make room, or name another folder (TMPDIR, or --out)."
            )
        # Only what is whole gets the name: a run that resumes takes a file of that name as it is. Written, and not
        # mapped to be written: where the disk fills up meanwhile that is an error, and not the end of the process.
        with (
            whole_file(self.file) as unfinished,
            open(unfinished, "wb") as file,
            torch.no_grad(),
            Progress("frozen layers, once", count) as progress,
        ):
            for start in range(0, count, batch):
                positions = range(start, min(start + batch, count))
                filled = [*positions, *[start] * (batch - len(positions))]
                features = early(filled)
                if features.shape[1:] != self.shape[1:]:
                    raise UserError("images of different sizes in one training: give them one size.")
                file.write(memoryview(features[: len(positions)].float().cpu().contiguous().numpy()))
                progress.advance(len(positions))
            file.flush()
            os.fsync(file.fileno())
