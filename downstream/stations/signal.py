"""What a line says of one part: the one thing that goes out of every sink, and its published JSON schema."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal, Self, get_args

from pretrain.reading import parse_json

Verdict = Literal["pass", "fail", "fault"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Of ids that follow from what a part is called, so that the same file is the same part after a restart.
NAMESPACE = uuid.UUID("6f2c1a52-8d2e-5b57-9f0e-6a2d9f0f4c11")


@dataclass(frozen=True)
class Signal:
    """The final word on one part; there is one of each part, and it never changes.

    Whoever receives it twice (delivery is at least once) knows it by `id`. A `fault` says nothing of the part: it was
    not judged, or not in time, and must not be taken for good; `reason` says why, and score, threshold, model and
    version may be missing then. Times are UTC, `latency_ms` is from the part's beginning (its trigger, or the arrival
    of its first frame) to this verdict.

    Attributes:
        id: A UUID; the same for each delivery, and after a restart.
        station: Name of the station in the line's configuration.
        part: Number of the part, counted by the station from 1 on, across restarts.
        name: What the source or the trigger calls the part: the file's name, the client's number; may be empty.
        verdict: pass, fail or fault.
        reason: Why, in words: the defective zones, or what went wrong. Empty for most passes.
        score: Of the frame that decided; higher is more anomalous.
        threshold: What the score is compared with.
        model: Name of the model.
        version: The model's fingerprint, as the service's results have it.
        time: When the part began, as 2026-01-31T23:59:59.123Z.
        latency_ms: Milliseconds from then to the verdict.
        regions: Where the defects are, in pixels of the frame that decided: area_px, box (left, top, right, bottom,
            the last two not included), peak, center, and zone where there are zones.
        digest: SHA-256 of the image that decided: of its file where it came as one, else of its RGB pixels.
        frames: How many frames the verdict is of.
        confidence: From 0.5 to 1; how sure the verdict is, by the spread of the normals' scores.
        width: Of the frame that decided, in pixels.
        height: Of the frame that decided.
    """

    id: str
    station: str
    part: int
    name: str
    verdict: Verdict
    reason: str
    score: float | None
    threshold: float | None
    model: str | None
    version: str | None
    time: str
    latency_ms: float
    regions: Sequence[Mapping] = ()
    digest: str | None = None
    frames: int = 0
    confidence: float | None = None
    width: int | None = None
    height: int | None = None

    def to_json(self) -> str:
        """One line, by `signal_schema`."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    def age_s(self) -> float:
        """Seconds since the verdict, by this machine's clock."""
        spoken_s = datetime.fromisoformat(self.time).timestamp() + self.latency_ms / 1e3
        return datetime.now(UTC).timestamp() - spoken_s

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Of what `to_json` wrote; a later version's further fields are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in parse_json(text).items() if name in known})


def new_id() -> str:
    """Of a part that nothing names."""
    return str(uuid.uuid4())


def id_of(station: str, name: str) -> str:
    """Of a part that its source calls the same however often it comes, also by a file's name that is no UTF-8."""
    return str(uuid.uuid5(NAMESPACE, f"{station}\n{name}".encode(errors="backslashreplace").decode()))


def signal_schema() -> dict:
    """JSON schema of `Signal.to_json`, also printed by `heldout line --schema signal`."""
    maybe_number, maybe_text = {"type": ["number", "null"]}, {"type": ["string", "null"]}
    pixels = {"type": "integer"}
    region = {
        "type": "object",
        "required": ["area_px", "box", "peak", "center"],
        "properties": {
            "area_px": pixels, "box": {"type": "array", "items": pixels, "minItems": 4, "maxItems": 4},
            "peak": {"type": "number"}, "center": {"type": "array", "items": pixels, "minItems": 2, "maxItems": 2},
            "zone": {"type": "string"},
        },
    }  # fmt: skip
    properties = {
        "id": {"type": "string", "format": "uuid"}, "station": {"type": "string"},
        "part": {"type": "integer", "minimum": 1}, "name": {"type": "string"}, "verdict": {"enum": [*VERDICTS]},
        "reason": {"type": "string"}, "score": maybe_number, "threshold": maybe_number, "model": maybe_text,
        "version": maybe_text, "time": {"type": "string", "format": "date-time"},
        "latency_ms": {"type": "number", "minimum": 0}, "regions": {"type": "array", "items": region},
        "digest": {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
        "frames": {"type": "integer", "minimum": 0}, "confidence": maybe_number,
        "width": {"type": ["integer", "null"]}, "height": {"type": ["integer", "null"]},
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "heldout line signal",
        "description": "The final word on one part. A fault is never a pass. Further properties may come.",
        "type": "object", "required": [*properties], "properties": properties,
    }  # fmt: skip
