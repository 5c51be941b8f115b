"""The types of faiss index, which of them suits how many vectors, and their numbers, under faiss's own names.

    flat      exact search
    ivf       `nlist` lists of near vectors, of which a search reads `nprobe`
    hnsw      a graph with `m` links per vector, through which a search keeps `ef_search` candidates
    ivfpq     as ivf, but of each vector only a code of `code_size` bytes is kept

All of them measure squared Euclidean distance; cosine is the same on vectors of unit length. Code that serves every
type calls nprobe or ef_search the `breadth` of a search: the one number that trades time for recall.
"""

import math
from dataclasses import dataclass

import faiss
import numpy as np

from pretrain.command import UserError, nearest
from pretrain.free_memory import free_memory_bytes

KINDS = ("flat", "ivf", "hnsw", "ivfpq")
# On two cores exact search of 50,000 vectors of 384 dimensions takes some milliseconds a query: nothing to gain.
MAX_EXACT = 50_000
# faiss asks for 39 training vectors per list; more of them make k-means slower and the lists hardly better.
TRAINING_PER_LIST, MIN_PER_LIST = 64, 39
CODES_PER_BYTE = 256


@dataclass(frozen=True)
class IndexSpec:
    """What an index is made with. What is None is chosen from the number of vectors, by `complete`.

    Attributes:
        kind: One of KINDS.
        nlist: Number of lists in ivf and ivfpq; 2 sqrt(n).
        m: Links of a vector in the graph of hnsw; 32.
        code_size: Bytes kept of a vector in ivfpq; one for 8 dimensions.
        seed: Of k-means.
    """

    kind: str
    nlist: int | None = None
    m: int | None = None
    code_size: int | None = None
    seed: int = 0


def choose_kind(count: int, dimensions: int, recall: float, memory_bytes: int | None = None) -> str:
    """flat while exact search is quick or nothing less will do; ivf while vectors fit into half of `memory_bytes`
    (default: what is free); else ivfpq. hnsw is never chosen: at 100 thousand patch vectors it was 1.5 times as quick
    in batches, at a million 2.5 times as slow for less recall, and it cannot free the memory of removed vectors."""
    if count <= MAX_EXACT or recall >= 1:
        return "flat"
    memory_bytes = free_memory_bytes() if memory_bytes is None else memory_bytes
    return "ivf" if 4 * count * dimensions <= memory_bytes / 2 else "ivfpq"


def complete(spec: IndexSpec, count: int, dimensions: int) -> IndexSpec:
    """`spec` with every number that its kind needs, and none that it does not. Raises UserError for numbers that
    `count` vectors of `dimensions` cannot have."""
    if spec.kind not in KINDS:
        raise UserError(f"there is no index kind {spec.kind!r}; {nearest(spec.kind, KINDS)}")
    nlist = m = code_size = None
    if spec.kind.startswith("ivf"):
        max_nlist = max(1, count // MIN_PER_LIST)
        nlist = spec.nlist or min(max_nlist, round(2 * math.sqrt(count)))
        if not 1 <= nlist <= count:
            raise UserError(f"{count} vectors do not fill {nlist} lists (nlist): give at most {max_nlist}.")
    if spec.kind == "hnsw":
        m = spec.m or 32
        if m < 2:
            raise UserError(f"a graph of {m} links per vector (m) does not hang together: give 16 to 64.")
    if spec.kind == "ivfpq":
        # A code is cut into bytes of equally many dimensions each.
        code_size = spec.code_size or max(b for b in range(1, max(1, dimensions // 8) + 1) if dimensions % b == 0)
        if dimensions % code_size:
            fitting = ", ".join(str(b) for b in range(4, dimensions + 1) if dimensions % b == 0)
            raise UserError(
                f"{dimensions} dimensions cannot be cut evenly into {code_size} bytes (code_size): "
                f"choose from {fitting}."
            )
        if count < CODES_PER_BYTE:
            raise UserError(
                f"ivfpq learns {CODES_PER_BYTE} codes for each byte, too many for {count} vectors: use flat."
            )
    return IndexSpec(spec.kind, nlist, m, code_size, spec.seed)


def empty_index(spec: IndexSpec, dimensions: int) -> faiss.Index:
    """An empty faiss index of a completed spec."""
    if spec.kind == "flat":
        return faiss.IndexFlatL2(dimensions)
    if spec.kind == "hnsw":
        return faiss.IndexHNSWFlat(dimensions, spec.m)
    coarse = faiss.IndexFlatL2(dimensions)
    if spec.kind == "ivf":
        index = faiss.IndexIVFFlat(coarse, dimensions, spec.nlist)
    else:
        index = faiss.IndexIVFPQ(coarse, dimensions, spec.nlist, spec.code_size, 8)
        index.pq.cp.seed = spec.seed + 1
    # Python would free the coarse index at the end of this function; now `index` does.
    coarse.this.disown()
    index.own_fields = True
    index.cp.seed = spec.seed + 1
    index.cp.min_points_per_centroid = 1  # few vectors are the user's choice, not worth a warning
    return index


def training_rows(spec: IndexSpec, count: int) -> np.ndarray:
    """Which of `count` vectors the lists and codes are learned from: ascending rows, a function of the seed."""
    if spec.nlist is None:
        return np.empty(0, np.int64)
    wanted = TRAINING_PER_LIST * spec.nlist
    if spec.code_size is not None:
        wanted = max(wanted, TRAINING_PER_LIST * CODES_PER_BYTE)
    generator = np.random.default_rng(spec.seed)
    return np.sort(generator.choice(count, min(count, wanted), replace=False))


def breadth_name(kind: str) -> str | None:
    """What faiss calls the breadth of a search in this kind; exact search has none."""
    return {"flat": None, "hnsw": "ef_search"}.get(kind, "nprobe")


def max_breadth(spec: IndexSpec, count: int) -> int:
    """The breadth beyond which a search finds nothing more."""
    return {"flat": 1, "hnsw": count}.get(spec.kind) or spec.nlist or 1


def search_parameters(kind: str, breadth: int, selector: faiss.IDSelector | None = None) -> faiss.SearchParameters:
    """What faiss is told for one search."""
    if kind == "flat":
        return faiss.SearchParameters(sel=selector)
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(sel=selector, efSearch=breadth)
    return faiss.SearchParametersIVF(sel=selector, nprobe=breadth)
