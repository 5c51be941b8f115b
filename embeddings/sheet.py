"""Search results as one HTML file: every query beside its neighbors, nothing to load from elsewhere."""

import base64
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from embeddings.templates import render
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.data.images import Record
from pretrain.drawing import outlined

THUMBNAIL_PX = 160


class Neighbor(NamedTuple):
    """An image near the query, its id, and its distance from it."""

    record: Record
    image_id: int
    distance: float


class SearchResult(NamedTuple):
    """A query and its neighbors, nearest first; the query itself is never among them. `missing` says why shards did not
    answer: then they are the neighbors in the others."""

    query: Path
    neighbors: list[Neighbor]
    missing: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How many neighbors there are of each category and defect, the most frequent first."""
        counts = Counter(f"{n.record.category} {n.record.defect}".strip() for n in self.neighbors)
        return ", ".join(f"{count} {label}" for label, count in counts.most_common())


def neighbor_page(results: Sequence[SearchResult], data: Path, title: str, note: str) -> str:
    """A page of all queries. `note` says how exact the search was; paths are shown relative to `data`."""
    return render(
        "neighbors.html",
        results=results,
        data=data,
        title=title,
        note=note,
        thumbnail=thumbnail,
        size_px=THUMBNAIL_PX,
    )


def thumbnail(path: Path, mask: Path | None = None, size_px: int = THUMBNAIL_PX) -> str | None:
    """An image as a data URL, its defect outlined; None if it cannot be read any more."""
    try:
        pixels = decode(path, size_px).pixels
        if mask is not None:
            pixels = outlined(pixels, read_mask(mask, size_px), distance_px=2, width_px=1)
    except Unreadable:
        return None
    data = BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=80)
    # Inside the page, so that it can be sent to somebody as one file.
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
