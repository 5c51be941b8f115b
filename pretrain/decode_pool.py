"""Many picture files -> square uint8 rows, on every core, in an order of the decoder's choosing.

Processes, not threads: the fast PNG decoder holds Python's lock. They only decode; what is to be written goes back to
the one process that may write.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pretrain.decode import Unreadable, decode
from pretrain.workers import usable_cores, worker_pool

# A process takes 0.3 s to start: below this many pictures it is quicker to decode where we are.
FEW_PICTURES = 48
PICTURES_PER_TASK = 4


class Row(NamedTuple):
    """A picture as `size_px` * `size_px` * 3 bytes, its size on disk, a digest of those bytes and one of its file."""

    pixels: bytes
    height: int
    width: int
    digest: bytes
    file_digest: bytes


def decode_rows(paths: Sequence[Path], size_px: int, workers: int | None = None) -> Iterator[tuple[Path, Row | str]]:
    """Yield every path once, with its row or with the reason why there is none. Memory does not grow with `paths`."""
    workers = workers or usable_cores()
    if workers == 1 or len(paths) < FEW_PICTURES:
        yield from _decode_task(paths, size_px)
        return
    waiting = dict.fromkeys(paths)
    try:
        for path, outcome in _decode_in_pool(paths, size_px, workers):
            del waiting[path]
            yield path, outcome
    except BrokenProcessPool:
        # One picture brought its process down, and the pool with it: take the rest one by one to learn which.
        yield from _decode_singly(list(waiting), size_px)


def _decode_in_pool(paths: Sequence[Path], size_px: int, workers: int) -> Iterator[tuple[Path, Row | str]]:
    remaining = iter(paths)
    tasks = iter(lambda: list(islice(remaining, PICTURES_PER_TASK)), [])
    with worker_pool(workers) as pool:
        try:
            try:
                pool.submit(os.getpid).result()
            except BrokenProcessPool:  # workers cannot start: the script came by a pipe, or runs without a guard
                yield from _decode_task(paths, size_px)
                return
            # Three tasks a process keep all busy; more would only pile up rows in memory.
            running = deque(pool.submit(_decoded_task, task, size_px) for task in islice(tasks, 3 * workers))
            while running:
                outcomes = running.popleft().result()
                running.extend(pool.submit(_decoded_task, task, size_px) for task in islice(tasks, 1))
                yield from outcomes
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_singly(paths: Sequence[Path], size_px: int) -> Iterator[tuple[Path, Row | str]]:
    remaining = deque(paths)
    while remaining:
        with worker_pool(1) as pool:
            try:
                while remaining:
                    (outcome,) = pool.submit(_decoded_task, [remaining[0]], size_px).result()
                    remaining.popleft()
                    yield outcome
            except BrokenProcessPool:
                yield remaining.popleft(), "brings the decoder down (too little memory, or a hostile file)"


def _decoded_task(paths: Sequence[Path], size_px: int) -> list[tuple[Path, Row | str]]:
    return list(_decode_task(paths, size_px))


def _decode_task(paths: Sequence[Path], size_px: int) -> Iterator[tuple[Path, Row | str]]:
    for path in paths:
        try:
            pixels, height, width, file_digest = decode(path, size_px)
            yield path, Row(pixels.tobytes(), height, width, blake2b(pixels, digest_size=16).digest(), file_digest)
        except Unreadable as unreadable:
            yield path, str(unreadable)
