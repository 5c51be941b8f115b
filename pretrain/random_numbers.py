"""Random numbers as a pure function of a key and a counter: no state, so nothing has to be restored on resume.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the mixing is SplitMix64's (Steele et al. 2014).
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def uniforms(positions: Sequence[int] | np.ndarray, columns: int, *key: int | str) -> np.ndarray:
    """Random float32 (n, columns) in [0, 1): row i is a pure function of `key` and positions[i].

    SplitMix64 on a counter rather than a stream of torch's: no state, no global generator, and a row does not depend on
    which other rows are asked for, so neither on the number of ranks nor on how a batch is split.
    """
    start = np.uint64(int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "little"))
    rows = np.asarray(positions, np.uint64)[:, None] * np.uint64(2**24)
    z = start + (rows + np.arange(columns, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
