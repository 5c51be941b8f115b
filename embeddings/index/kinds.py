"""Which faiss index for how many vectors, and how hard it looks: exact, lists of near vectors, a graph, or codes.

`effort` is the one knob that trades time for recall in each approximate kind: how many lists are read (ivf, ivfpq), or
how many candidates are kept on the way through the graph (hnsw). All of them measure squared Euclidean distance; cosine
is the same on vectors of unit length.
"""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pretrain.command import UserError, nearest

if TYPE_CHECKING:
    import faiss

KINDS = ("flat", "ivf", "hnsw", "ivfpq")
# On two cores exact search of 50,000 vectors of 384 dimensions takes some milliseconds a query: nothing to gain.
MAX_EXACT = 50_000
# faiss asks for 39 training vectors a list; more of them make k-means slower and the lists hardly better.
TRAINING_PER_LIST, MIN_PER_LIST = 64, 39


@dataclass(frozen=True)
class Shape:
    """An approximate index before it is filled. What is none is chosen from the number of vectors.

    Attributes:
        kind: One of KINDS.
        lists: Into how many lists ivf and ivfpq sort the vectors; 2 sqrt(n).
        links: Neighbors a vector has in the graph of hnsw; 32.
        code_bytes: What is left of a vector in ivfpq; one byte for 8 dimensions.
        seed: Of k-means.
    """

    kind: str
    lists: int | None = None
    links: int | None = None
    code_bytes: int | None = None
    seed: int = 0


def choose_kind(count: int, dimensions: int, recall: float, memory_bytes: int | None = None) -> str:
    """flat while exact search is quick or nothing less will do; ivf while vectors fit into half of `memory_bytes`
    (default: what is free); else ivfpq. hnsw is never chosen: at 100 thousand patch vectors it was 1.5 times as quick
    in batches, at a million 2.5 times as slow for less recall, and it cannot give back the room of what is removed."""
    if count <= MAX_EXACT or recall >= 1:
        return "flat"
    memory_bytes = free_memory_bytes() if memory_bytes is None else memory_bytes
    return "ivf" if 4 * count * dimensions <= memory_bytes / 2 else "ivfpq"


def free_memory_bytes() -> int:
    """Memory that could be used without swapping."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 4 << 30


def complete(shape: Shape, count: int, dimensions: int) -> Shape:
    """`shape` with numbers for all that was left open. Raises UserError for what `count` vectors cannot fill."""
    if shape.kind not in KINDS:
        raise UserError(f"there is no index kind {shape.kind!r}; {nearest(shape.kind, KINDS)}")
    lists = links = code_bytes = None
    if shape.kind.startswith("ivf"):
        most = max(1, count // MIN_PER_LIST)
        lists = shape.lists or min(most, round(2 * math.sqrt(count)))
        if not 1 <= lists <= count:
            raise UserError(f"{count} vectors do not fill {lists} lists: give at most {most}.")
    if shape.kind == "hnsw":
        links = shape.links or 32
        if links < 2:
            raise UserError(f"a graph of {links} links a vector does not hang together: give 16 to 64.")
    if shape.kind == "ivfpq":
        code_bytes = shape.code_bytes or max(b for b in range(1, max(1, dimensions // 8) + 1) if dimensions % b == 0)
        if dimensions % code_bytes:
            fitting = ", ".join(str(b) for b in range(4, dimensions + 1) if dimensions % b == 0)
            raise UserError(
                f"{dimensions} dimensions are not cut evenly into {code_bytes} bytes: choose from {fitting}."
            )
        if count < 256:
            raise UserError(f"ivfpq learns 256 codes a byte, which {count} vectors cannot teach it: take flat.")
    return Shape(shape.kind, lists, links, code_bytes, shape.seed)


def make_engine(shape: Shape, dimensions: int) -> "faiss.Index":
    """An empty faiss index of a completed shape."""
    import faiss

    if shape.kind == "flat":
        return faiss.IndexFlatL2(dimensions)
    if shape.kind == "hnsw":
        return faiss.IndexHNSWFlat(dimensions, shape.links)
    coarse = faiss.IndexFlatL2(dimensions)
    if shape.kind == "ivf":
        engine = faiss.IndexIVFFlat(coarse, dimensions, shape.lists)
    else:
        engine = faiss.IndexIVFPQ(coarse, dimensions, shape.lists, shape.code_bytes, 8)
        engine.pq.cp.seed = shape.seed + 1
    coarse.this.disown()  # the engine frees it
    engine.own_fields = True
    engine.cp.seed = shape.seed + 1
    engine.cp.min_points_per_centroid = 1  # few vectors are the user's choice, not worth a warning
    return engine


def training_rows(shape: Shape, count: int) -> np.ndarray:
    """Which of `count` vectors the lists and codes are learned from: ascending rows, a function of the seed."""
    if shape.lists is None:
        return np.empty(0, np.int64)
    wanted = TRAINING_PER_LIST * shape.lists
    if shape.code_bytes is not None:
        wanted = max(wanted, TRAINING_PER_LIST * 256)
    generator = np.random.default_rng(shape.seed)
    return np.sort(generator.choice(count, min(count, wanted), replace=False))


def most_effort(shape: Shape, count: int) -> int:
    """Beyond which looking harder changes nothing."""
    return {"flat": 1, "hnsw": count}.get(shape.kind) or shape.lists


def parameters(kind: str, effort: int, selector: "faiss.IDSelector | None" = None) -> "faiss.SearchParameters":
    """What faiss is told for one search."""
    import faiss

    if kind == "flat":
        return faiss.SearchParameters(sel=selector)
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
    return faiss.SearchParametersIVF(sel=selector, nprobe=effort)
