"""What fits into a GPU's memory: a batch of images that are only asked about goes in parts, one that is learned from
cannot, and the largest that would fit is said."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from pretrain.command import UserError, is_gpu_full

Answer = TypeVar("Answer")
# Batches that are tried, to learn what an image takes, of a training with large ones and of one with small ones, in
# whose steps what would fit is told; and how much of the memory may be counted on.
TRIED, TRIED_OF_FEW, COUNTED_ON = (8, 16), (2, 3), 0.95


def in_parts(ask: Callable[[Tensor], Answer], images: Tensor) -> list[Answer]:
    """What `ask` answers to a batch (b, 3, h, w); where a GPU's memory does not suffice, to its halves, and theirs. For
    answers that do not depend on an image's neighbors. Raises UserError where a single image is too much."""
    try:
        return [ask(images)]
    except RuntimeError as error:  # its traceback holds what takes the memory, and is gone after these lines
        if not is_gpu_full(error):
            raise
    torch.cuda.empty_cache()
    height, width = images.shape[-2:]
    if len(images) == 1:
        raise UserError(
            f"an image of {width}x{height} px does not fit into the GPU's memory: take smaller ones, end what else "
            "runs on the GPU, or give --device cpu."
        )
    half = len(images) // 2
    _say(half, width, height)
    return [*in_parts(ask, images[:half]), *in_parts(ask, images[half:])]


@cache
def _say(count: int, width: int, height: int) -> None:
    print(f"the GPU's memory is short: {count} images of {width}x{height} px at once", file=sys.stderr, flush=True)


@contextmanager
def told_what_fits(
    batch: int,
    size_px: int,
    train_some: Callable[[int], object],
    device: torch.device,
    processes: int = 1,
    options: tuple[str, str] = ("--batch", "--size-px"),
) -> Iterator[None]:
    """A training that needs more memory than there is ends in one sentence, with the batch that would fit, by what
    `train_some` takes for a few images. Of several processes nobody knows who else ran short: there it is not tried.
    `options` are those for the batch and the side of an image."""
    try:
        yield
        return
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
    fits = batch // 2 if processes > 1 else largest_batch(train_some, device, batch)
    may = "may" if processes > 1 else "would"
    rather = f"{options[0]} {fits} {may}" if 2 <= fits < batch else f"try a smaller {options[1]}, or --device cpu"
    raise UserError(f"{batch} images of {size_px} px do not fit into the GPU's memory: {rather}, with another --out.")


def largest_batch(train_some: Callable[[int], object], device: torch.device, asked: int) -> int:
    """How many images a step could take where `asked` are too many, 0 where not even a few can be tried."""
    torch.cuda.empty_cache()
    peaks, tried = [], TRIED if asked > TRIED[-1] else TRIED_OF_FEW
    try:
        for count in tried:
            torch.cuda.reset_peak_memory_stats(device)
            train_some(count)
            peaks.append(torch.cuda.max_memory_allocated(device))
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        return 0
    each = max(1.0, (peaks[1] - peaks[0]) / (tried[1] - tried[0]))
    fixed = peaks[0] - tried[0] * each
    free, _ = torch.cuda.mem_get_info(device)
    usable = COUNTED_ON * (free + torch.cuda.memory_reserved(device))  # what this process holds is its own
    step = TRIED[0] if tried is TRIED else 1
    return max(0, int((usable - fixed) / each)) // step * step
