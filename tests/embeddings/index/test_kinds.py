"""Which index for how many vectors, and numbers that cannot be."""

import pytest
from clustered_vectors import VECTORS
from refusals import refusal

from embeddings.index import Index
from embeddings.index.kinds import IndexSpec, choose_kind, complete


def test_kind_follows_from_size_recall_and_memory():
    assert choose_kind(50_000, 384, 0.95) == "flat"
    assert choose_kind(1_000_000, 384, 1.0) == "flat"
    assert choose_kind(1_000_000, 384, 0.95, memory_bytes=8 << 30) == "ivf"
    assert choose_kind(10_000_000, 384, 0.95, memory_bytes=8 << 30) == "ivfpq"
    assert complete(IndexSpec("ivf"), 1_000_000, 384).nlist == 2000
    assert complete(IndexSpec("ivfpq"), 1_000_000, 384).code_size == 48
    assert complete(IndexSpec("ivf"), 5, 384).nlist == 1


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"kind": "ivfqp"}, "did you mean ivfpq?"),
        ({"metric": "cosin"}, "did you mean cosine?"),
        ({"recall": 0.0}, "recall of 0.0"),
        ({"recall": 95}, "recall of 95"),
        ({"kind": "ivf", "nlist": 4000}, "3000 vectors do not fill 4000 lists"),
        ({"kind": "hnsw", "m": 1}, "a graph of 1 links per vector"),
        ({"kind": "ivfpq", "code_size": 7}, "24 dimensions cannot be cut evenly into 7 bytes"),
    ],
)
def test_builds_that_cannot_be(asked, answer):
    assert answer in refusal(Index.build, VECTORS, **asked)
