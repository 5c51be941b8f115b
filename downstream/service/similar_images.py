"""Search for similar images: among those that the service kept, and in a folder from embeddings/extract.py."""

import json
import re
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from downstream.service.database import Database, StoredImage
from downstream.service.decoding import ImageType
from embeddings.build import open_index
from embeddings.encoding import Encoding, Source, encoder_of, make_source
from embeddings.index import Index
from embeddings.open_vectors import open_vectors
from pretrain.data.channels import PLAIN, Channels, read_contents
from pretrain.data.decode import Unreadable, bytes_of
from pretrain.encoder import load_encoder
from pretrain.files import write_whole

THUMBNAIL_PX = 512
DIGEST = re.compile("[0-9a-f]{64}")


class SimilarImage(NamedTuple):
    """A neighbor of the query: `key` leads to its image, a digest or an id; what is not known of it is empty."""

    distance: float
    origin: str
    key: str
    name: str = ""
    category: str = ""
    defect: str = ""


class SimilarImages:
    """Vectors of one encoder: that of `vectors`, a folder from embeddings/extract.py, else of `encoder`, a file, else
    none: then images can be kept, not searched for. May be used from any thread."""

    def __init__(
        self,
        vectors: Path | None,
        encoder: Path | None,
        images: Path,
        database: Database,
        device: torch.device | str = "cpu",
    ) -> None:
        self._images, self._database, self._lock = images, database, threading.Lock()
        self._vectors = open_vectors(vectors) if vectors else None
        self._index = open_index(self._vectors, mapped=False) if self._vectors else None
        self._kept: Index | None = None
        self._digests: dict[int, str] = {}
        self._last_id = 0
        self.source: Source | None = None
        if self._vectors is not None:
            self.source, used = self._vectors.source, encoder_of(self._vectors.config, encoder)
        elif encoder is not None:
            used = load_encoder(encoder)
            self.source = make_source(used, "pooled")
        self._encoding = Encoding(used, self.source, device) if self.source else None
        self._source_text = json.dumps(self.source.as_json(), sort_keys=True) if self.source else ""

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """Of a square uint8 (h, w, 3) of `source.size_px`: float32 (d,)."""
        with self._lock:
            (vector,) = self._encoding.vectors(pixels[None])
        return vector

    def keep(self, data: bytes, digest: str, image_type: ImageType, pixels: np.ndarray | None) -> None:
        """Keep an image's file under its digest, with its vector if `pixels` are given for one."""
        file = f"{digest}{image_type.suffix}"
        if not (self._images / file).exists():
            write_whole(self._images / file, data)
        has_vector = pixels is not None and self._encoding is not None
        vector = self.vector(pixels).astype(np.float32).tobytes() if has_vector else b""
        self._database.add_image(StoredImage(digest, file, self._source_text if has_vector else "", vector))

    def search(self, vector: np.ndarray, k: int, own_digest: str) -> tuple[list[SimilarImage], int]:
        """The `k` nearest, or as many as there are, without the image itself; and among how many."""
        with self._lock:
            self._catch_up()
            similar = self._among_kept(vector, k, own_digest) + self._among_indexed(vector, k)
            count = sum(len(index) for index in (self._kept, self._index) if index is not None)
        return sorted(similar)[:k], count

    def distances_to_nearest(self, digests: Sequence[str]) -> dict[str, float]:
        """Of kept images, by digest, to the nearest other one that was kept; without those of which it is not known."""
        images = self._database.images_of(digests, self._source_text) if self._source_text else []
        vectors = [np.frombuffer(image.vector, np.float32) for image in images]
        usable = [(image, vector) for image, vector in zip(images, vectors, strict=True) if _has_direction(vector)]
        with self._lock:
            self._catch_up()
            if self._kept is None or len(self._kept) < 2 or not usable:
                return {}
            # Two, since one of them is the image itself.
            nearest = self._kept.search(np.stack([vector for _, vector in usable]), 2)
        rows = zip(usable, nearest.distances, nearest.ids, strict=True)
        return {image.digest: float(distances[ids != image.id][0]) for (image, _), distances, ids in rows}

    def kept(self, digest: str) -> bytes | None:
        """The file of an image that was kept; none where there is none."""
        path = self._path("kept", digest)
        try:
            return path and bytes_of(path)
        except Unreadable:
            return None

    def thumbnail(self, origin: str, key: str, channels: Channels = PLAIN) -> bytes | None:
        """An image that `search` found as JPEG of at most THUMBNAIL_PX, a kept one as a model of those channels sees
        it; none where there is no such image."""
        path = self._path(origin, key)
        try:
            if path is None:
                return None
            seen = read_contents([bytes_of(path)], None, channels if origin == "kept" else PLAIN)
            image = Image.fromarray(seen.pixels)
        except Unreadable:
            return None
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        file = BytesIO()
        image.save(file, "JPEG", quality=90)
        return file.getvalue()

    def _path(self, origin: str, key: str) -> Path | None:
        """Made of what was stored, never of what a client wrote."""
        if origin == "kept":
            image = self._database.image(key) if DIGEST.fullmatch(key) else None
            return self._images / image.file if image else None
        if origin != "index" or self._vectors is None or not (key.isascii() and key.isdigit() and len(key) < 19):
            return None
        positions = np.flatnonzero(self._vectors.image_ids == int(key))
        return self._vectors.records[positions[0]].path if len(positions) else None

    def _catch_up(self) -> None:
        """Take in what was kept since, by this process or another."""
        if self._encoding is None:
            return
        new = self._database.images_after(self._last_id, self._source_text)
        if not new:
            return
        vectors = np.stack([np.frombuffer(image.vector, np.float32) for image in new])
        ids = np.array([image.id for image in new], np.int64)
        usable = np.array([_has_direction(vector) for vector in vectors])
        if usable.any() and self._kept is None:
            self._kept = Index.build(vectors[usable], ids[usable], kind="flat")
        elif usable.any():
            self._kept.add(vectors[usable], ids[usable])
        self._digests |= {image.id: image.digest for image in new}
        self._last_id = new[-1].id

    def _among_kept(self, vector: np.ndarray, k: int, own_digest: str) -> list[SimilarImage]:
        if self._kept is None:
            return []
        # One more than asked: the query itself may have been kept, and is left out.
        nearest = self._kept.search(vector[None], min(k + 1, len(self._kept)))
        pairs = zip(nearest.distances[0], nearest.ids[0], strict=True)
        named = [SimilarImage(float(distance), "kept", self._digests[int(i)]) for distance, i in pairs]
        return [neighbor for neighbor in named if neighbor.key != own_digest]

    def _among_indexed(self, vector: np.ndarray, k: int) -> list[SimilarImage]:
        if self._index is None:
            return []
        nearest = self._index.search(vector[None], min(k, len(self._index)), source=self.source.as_json())
        positions = self._vectors.positions_of(nearest.ids[0])
        return [
            SimilarImage(float(distance), "index", str(i), record.path.name, record.category, record.defect)
            for distance, i, record in zip(
                nearest.distances[0], nearest.ids[0], (self._vectors.records[p] for p in positions), strict=True
            )
        ]


def _has_direction(vector: np.ndarray) -> bool:
    """Cosine distance needs one, which neither zeros nor NaN have."""
    return bool(np.isfinite(vector).all() and vector.any())
