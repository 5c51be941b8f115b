"""Many image files -> rows of a file of uint8 images of one size, on every core, in an order of the pool's choosing.

Processes, not threads: the fast PNG decoder holds Python's lock. Each writes its rows itself, since to send them to one
that writes took a fifth of the time. Every row is written once, by one process, in a part of the file that was given
out for this call alone: so a worker that outlives its killed parent for a moment can spoil nothing.
"""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.data.channels import PLAIN, Channels, read_image
from pretrain.data.decode import Unreadable
from pretrain.data.size import Size, sides
from pretrain.free_memory import free_memory_bytes
from pretrain.workers import usable_cores, worker_pool

# A process takes 0.3 s to start: below this many images it is quicker to decode where we are.
FEW_IMAGES = 48
# To hand over a task takes about 0.3 ms of the cores that decode.
MAX_IMAGES_PER_TASK = 16
# glibc gives freed memory back to the system, to be asked for page by page with the next image, unless a piece as
# large as this was freed before. That took a tenth of the time.
KEPT_BYTES = 16 << 20
# What a process takes beside images, and for each color of a pixel: the file, the pixels, a copy of them.
WORKER_BYTES, BYTES_OF_A_COLOR = 160 << 20, 3


class Row(NamedTuple):
    """Where an image's bytes, height * width * 3 of each light, were written, its size on disk, a digest of
    those bytes and one of its file."""

    row: int
    height: int
    width: int
    digest: bytes
    file_digest: bytes


Jobs = list[tuple[Path, int]]  # an image, and the row it is to have


def decode_rows(
    paths: Sequence[Path],
    file: Path,
    first_row: int,
    size_px: Size,
    workers: int | None = None,
    channels: Channels = PLAIN,
) -> Iterator[tuple[Path, Row | str]]:
    """Write the images to `file`, from `first_row` on, and yield every path once, with its row or with the reason
    why there is none. Memory does not grow with `paths`. Raises OSError where the file cannot be written."""
    jobs = list(zip(paths, count(first_row)))
    workers = workers or min(usable_cores(), most_workers(size_px, channels))
    if workers == 1 or len(jobs) < FEW_IMAGES:
        yield from _decode_here(jobs, file, size_px, channels)
        return
    waiting = dict(jobs)
    try:
        for path, outcome in _decode_in_pool(jobs, file, size_px, workers, channels):
            del waiting[path]
            yield path, outcome
    except BrokenProcessPool:
        # One image brought its process down, and the pool with it: take the rest one by one to learn which.
        yield from _decode_singly(list(waiting.items()), file, size_px, channels)


def most_workers(size_px: Size, channels: Channels = PLAIN) -> int:
    """How many processes the free memory is enough for, with images of that size: at least one."""
    each = WORKER_BYTES + BYTES_OF_A_COLOR * 3 * channels.lights * math.prod(sides(size_px))
    return max(1, free_memory_bytes() // each)


def _decode_here(jobs: Jobs, file: Path, size_px: Size, channels: Channels) -> Iterator[tuple[Path, Row | str]]:
    for path, row in jobs:
        (outcome,) = _decode_task([(path, row)], file, size_px, channels)
        yield path, outcome


def _decode_in_pool(
    jobs: Jobs, file: Path, size_px: Size, workers: int, channels: Channels
) -> Iterator[tuple[Path, Row | str]]:
    tasks = _tasks(jobs, workers)
    with worker_pool(workers) as pool:

        def running(tasks: Iterable[Jobs]) -> list[tuple[Jobs, Future]]:
            return [(task, pool.submit(_decode_task, task, file, size_px, channels)) for task in tasks]

        try:
            try:
                # As many as there are to be processes: the pool starts one for each task that finds none idle.
                starting = [pool.submit(os.getpid) for _ in range(workers)]
                starting[0].result()
            except BrokenProcessPool:  # workers cannot start, where memory is short, say
                yield from _decode_here(jobs, file, size_px, channels)
                return
            # Three tasks a process keep all busy, also while rows are committed, and what is under way stays little.
            under_way = deque(running(islice(tasks, 3 * workers)))
            while under_way:
                task, future = under_way.popleft()
                outcomes = future.result()
                under_way += running(islice(tasks, 1))
                yield from zip((path for path, _ in task), outcomes, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _tasks(jobs: Jobs, workers: int) -> Iterator[Jobs]:
    """Smaller and smaller towards the end, so that all processes finish together."""
    start = 0
    while start < len(jobs):
        size = min(MAX_IMAGES_PER_TASK, max(1, (len(jobs) - start) // (4 * workers)))
        yield jobs[start : start + size]
        start += size


def _decode_singly(jobs: Jobs, file: Path, size_px: Size, channels: Channels) -> Iterator[tuple[Path, Row | str]]:
    remaining = deque(jobs)
    while remaining:
        with worker_pool(1) as pool:
            try:
                while remaining:
                    (outcome,) = pool.submit(_decode_task, [remaining[0]], file, size_px, channels).result()
                    path, _ = remaining.popleft()
                    yield path, outcome
            except BrokenProcessPool:
                path, _ = remaining.popleft()
                yield path, "brings the decoder down (too little memory, or a hostile file)"


def _decode_task(jobs: Jobs, file: Path, size_px: Size, channels: Channels) -> list[Row | str]:
    """What became of each, in their order."""
    np.empty(KEPT_BYTES, np.uint8)
    outcomes: list[Row | str] = []
    with open(file, "r+b") as rows:
        for path, row in jobs:
            try:
                pixels, height, width, file_digest = read_image(path, size_px, channels)
            except Unreadable as unreadable:
                outcomes.append(str(unreadable))
                continue
            pixels = np.ascontiguousarray(pixels)
            rows.seek(row * pixels.nbytes)
            rows.write(pixels)
            rows.flush()
            outcomes.append(Row(row, height, width, pixel_digest(pixels), file_digest))
    return outcomes


def pixel_digest(pixels: np.ndarray) -> bytes:
    """Equal for equal pixels of images of one size."""
    return sha256(pixels).digest()[:16]
