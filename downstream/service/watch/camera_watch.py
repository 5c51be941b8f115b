"""What the camera of each product usually shows: learned from the first images that were accepted, and kept.

An image is looked at as its model sees it, drawn to the model's size, and a model of the same name may be one of
another product: so what was learned belongs to one version of a model, as does what counts as accepted.
"""

import json
import math
import threading
import time
from collections import deque

import numpy as np
from sqlalchemy import Column, Select, and_, delete, insert, select

from downstream.service.audit.log import add_change
from downstream.service.database import Database, read_setting, read_stored, write_setting
from downstream.service.tables import CAMERA_REFERENCES
from downstream.service.watch.camera import (
    FROZEN_IMAGES,
    REFERENCES,
    CameraProblem,
    Look,
    References,
    is_frozen,
    look_at,
    look_from,
    problems,
    references_of,
)

# So long a worker goes on with what it knows before it asks the database again.
TRUSTED_S = 5.0


class CameraWatch:
    """Of one worker; what was learned is in the database, for all of them. May be used from any thread."""

    def __init__(self, database: Database) -> None:
        # Held while the database is asked too: many threads that do that at once would open a connection each.
        self._database, self._lock = database, threading.RLock()
        # By model and version: how often it was begun anew, what came of it, and when that was last seen to hold.
        self._references: dict[tuple[str, str], tuple[str, References, float]] = {}
        self._digests: dict[str, deque[str]] = {}

    def check(self, model: str, version: str, pixels: np.ndarray, digest: str) -> tuple[Look, list[CameraProblem]]:
        """What an image is like, and what is wrong with it; `pixels` uint8 (h, w, 3), as the model sees them."""
        look, references = look_at(pixels), self.references(model, version)
        found = problems(look, references) if references else []
        with self._lock:
            digests = self._digests.setdefault(model, deque(maxlen=FROZEN_IMAGES))
            digests.append(digest)
            return look, found + (["frozen"] if is_frozen(list(digests)) else [])

    def accept(self, model: str, version: str, look: Look) -> None:
        """An image was called good, and nothing is wrong with it: until there are enough, it is a reference."""
        with self._lock:
            if self.references(model, version) is None:
                values = {"model": model, "model_version": version, "look": json.dumps(look.as_json())}
                with self._database.alone() as connection:
                    connection.execute(insert(CAMERA_REFERENCES).values(**values))

    def count(self, model: str, version: str) -> int:
        return len(self._database.rows(_of(model, version, CAMERA_REFERENCES.c.id)))

    def references(self, model: str, version: str) -> References | None:
        """None until there are enough. Begun anew by another worker, they are others, seconds later."""
        with self._lock:
            known, references, seen_s = self._references.get((model, version), (None, None, -math.inf))
            if time.monotonic() - seen_s < TRUSTED_S:
                return references
            # Ids tell nothing: SQLite gives those of deleted rows again. Read first, so that what is begun anew
            # meanwhile is found the next time.
            generation = self._database.settings().get(generation_name(model), "0")
            if self.count(model, version) < REFERENCES:
                self._references.pop((model, version), None)
                return None
            if known != generation:
                looks = self._database.rows(_of(model, version, CAMERA_REFERENCES.c.look))
                stored = [read_stored(row["look"], dict, f"a look at {model}") for row in looks]
                references = references_of([look_from(each) for each in stored])
            self._references[model, version] = (generation, references, time.monotonic())
            return references

    def begin_anew(self, model: str, version: str, by: str) -> None:
        """Forget what images are like: the camera was moved, the light changed, and that is how it shall be. For other
        versions of the model too, which see by the same camera: the entry of the audit log counts all of them."""
        with self._database.alone() as connection:
            forgotten = delete(CAMERA_REFERENCES).where(CAMERA_REFERENCES.c.model == model)
            before = connection.execute(forgotten).rowcount
            generation = int(read_setting(connection, generation_name(model)) or 0) + 1
            write_setting(connection, generation_name(model), str(generation))
            add_change(connection, by, "camera references", model, before, 0)
        with self._lock:
            self._references.pop((model, version), None)


def _of(model: str, version: str, column: Column) -> Select:
    """A column of the images that were learned from."""
    wanted = and_(CAMERA_REFERENCES.c.model == model, CAMERA_REFERENCES.c.model_version == version)
    return select(column).where(wanted).order_by(CAMERA_REFERENCES.c.id).limit(REFERENCES)


def generation_name(model: str) -> str:
    """Of the setting that counts how often it was begun anew."""
    return f"camera {model}"
