"""What the service says, as its clients read it: every field with its meaning, and an example."""

import base64
import math
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from baselines.contract.heatmap import draw_heatmap
from baselines.contract.regions import Region
from downstream.inspection.inspector import Inspection
from downstream.service.database import Result
from downstream.service.models import Loaded

MapKind = Literal["none", "array", "png"]
LONGEST_NAME = 200
DIGITS = 6


class Said(BaseModel):
    """Field names such as model_loaded are wanted here."""

    model_config = ConfigDict(protected_namespaces=())


class Problem(Said):
    detail: str = Field(description="One sentence for a person.", examples=["damaged or cut off (truncated file)"])


class RegionAnswer(Said):
    """Where something is, in pixels of the original image."""

    area_px: int
    box: tuple[int, int, int, int] = Field(description="Left, top, right, bottom; right and bottom not included.")
    peak: float = Field(description="The highest value of the map in it.")
    center: tuple[int, int] = Field(description="x and y of that value.")


class Judged(Said):
    """What is kept of an image."""

    id: int = Field(description="Number of the result; GET /api/results has it again.")
    created: str = Field(description="UTC.", examples=["2026-01-31T23:59:59.123Z"])
    model: str
    category: str
    name: str = Field(description="The file's name as the client gave it; not used for anything.")
    digest: str = Field(description="SHA-256 of the file.")
    width: int
    height: int
    anomaly_score: float = Field(description="Higher is more anomalous; defective above the threshold.")
    threshold: float
    is_defective: bool
    confidence: float = Field(description="How sure the decision is: 0.5 at the threshold, at most 1.")
    regions: list[RegionAnswer] = Field(description="The highest peak first.")
    milliseconds: float = Field(description="In the service, from the last byte in to the answer.")
    is_kept: bool = Field(description="Whether the image itself was kept.")


class Answer(Judged):
    """One image's judgement."""

    position: int = Field(description="Among the images of the request, from 0.")
    reconstruction_error: float | None = Field(
        description="The score again if the model is an auto-encoder, whose score is that; else null."
    )
    map_threshold: float | None = Field(description="Above it a pixel of the map belongs to a region.")
    anomaly_map: list[list[float]] | str | None = Field(
        description="By the field `map`: null; rows of numbers, stretched over the whole image; or a data: URL of a "
        "PNG with alpha to lay over the image, colored on one scale that is tied to map_threshold."
    )
    model_milliseconds: float = Field(description="The model's share of the batch that the image was in.")


class Failure(Said):
    position: int
    name: str
    status: int = Field(description="What HTTP status the image would have had alone.")
    reason: str


class BatchAnswer(Said):
    results: list[Answer]
    failures: list[Failure]
    total_processed: int = Field(description="How many were judged.")
    response_time: float = Field(description="Seconds.")


class BatchProblem(Problem):
    """What is wrong with a request, or with each of its images."""

    failures: list[Failure] = Field(default=[], description="Each image, where none could be judged.")


class ModelAnswer(Said):
    name: str
    is_loaded: bool


class ModelsAnswer(Said):
    models: list[ModelAnswer]


class LoadRequest(Said):
    name: str = Field(min_length=1, max_length=255, description="One of GET /api/models.", examples=["hazelnut"])


class LimitsAnswer(Said):
    image_bytes: int
    image_pixels: int
    images_a_request: int
    waiting_images: int


class StatusAnswer(Said):
    model_loaded: bool
    model: str
    category: str
    method: str
    size_px: int = Field(description="Side of the square that images are stretched to.")
    threshold: float
    device: str
    version: str
    inside: int = Field(description="ImageSet accepted by this worker and not answered yet.")
    search: bool = Field(description="Whether POST /api/search has an encoder.")
    limits: LimitsAnswer


class HealthAnswer(Said):
    status: Literal["ok", "unavailable"]
    model_loaded: bool
    database: bool


class ThresholdRequest(Said):
    value: float | None = Field(
        allow_inf_nan=False, description="The new threshold; null goes back to the model's own.", examples=[1.25]
    )


class ThresholdAnswer(Said):
    model: str
    value: float = Field(description="In force now.")
    fitted: float = Field(description="The model's own, from good images.")
    false_alarm_rate: float = Field(description="The share of false alarms that the model's own was made for.")
    why: str = Field(description="Where the model's own comes from.")
    map_threshold: float | None
    minimum_area_px: int = Field(description="If above 0, an image without any region is good whatever its score.")
    normal_scores: list[float] = Field(description="Scores of good images that the model did not learn from.")


class ResultsAnswer(Said):
    results: list[Judged] = Field(description="The newest first.")
    total: int = Field(description="How many there are with this filter.")
    next_before: int | None = Field(description="Give it as `before` for the next page; null: there is none.")


class NeighborAnswer(Said):
    distance: float = Field(description="1 - cosine, from 0 to 2.")
    origin: Literal["kept", "index"] = Field(description="An image kept by the service, or one of --vectors.")
    image: str = Field(description="Where the image is, at most 512 px.", examples=["/api/images/index/3"])
    name: str
    category: str
    defect: str = Field(description="From the folder of --vectors; empty: not known.")
    is_defective: bool | None = Field(description="Of a kept image, as it was judged last; null: not known.")


class SearchAnswer(Said):
    neighbors: list[NeighborAnswer] = Field(description="The nearest first; never the image itself.")
    searched: int = Field(description="Among so many.")


def own_version() -> str:
    """Of the heldout that is installed; one that runs from a checkout may be none."""
    try:
        return version("heldout")
    except PackageNotFoundError:
        return "unknown"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def safe_name(name: str | None) -> str:
    """The last part of a client's file name, of printable characters, which is only ever shown."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-LONGEST_NAME:]


def result_of(found: Inspection, loaded: Loaded, name: str, digest: str, milliseconds: float, is_kept: bool) -> Result:
    """What is to be kept of an inspection."""
    return Result(
        now(), loaded.name, loaded.inspector.category, name, digest, found.width, found.height, found.score,
        found.threshold, found.is_defective, found.confidence, [plain(region) for region in found.regions],
        round(milliseconds, 3), is_kept,
    )  # fmt: skip


def plain(region: Region) -> dict:
    """A region as JSON has it."""
    return {**region._asdict(), "box": list(region.box), "center": list(region.center)}


def judged(result: Result) -> dict:
    """The fields of Judged."""
    fields = result._asdict()
    return {"anomaly_score": fields.pop("score"), **fields}


def answer_of(result: Result, found: Inspection, loaded: Loaded, position: int, kind: MapKind) -> Answer:
    return Answer(
        **judged(result),
        position=position,
        reconstruction_error=found.score if loaded.reconstructs else None,
        map_threshold=found.map_threshold,
        anomaly_map=map_as(kind, found),
        model_milliseconds=round(found.milliseconds, 3),
    )


def map_as(kind: MapKind, found: Inspection) -> list | str | None:
    if kind == "none" or found.anomaly_map is None:
        return None
    if kind == "array":
        highest = float(np.abs(found.anomaly_map).max())
        places = DIGITS - math.ceil(math.log10(highest)) if highest > 0 else 0
        return np.round(found.anomaly_map.astype(np.float64), places).tolist()
    limit = found.threshold if found.map_threshold is None else found.map_threshold
    file = BytesIO()
    heat_over_nothing(found.anomaly_map, limit).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def heat_over_nothing(anomaly_map: np.ndarray, threshold: float) -> Image.Image:
    """The heat of a map (h, w) with alpha. How opaque it is shows in what is left of black and white beneath it."""
    black = np.zeros((*anomaly_map.shape, 3), np.uint8)
    over_black = draw_heatmap(black, anomaly_map, threshold).astype(np.float32)
    over_white = draw_heatmap(black + 255, anomaly_map, threshold).astype(np.float32)
    alpha = (255 - (over_white - over_black).mean(axis=2, keepdims=True)) / 255
    color = over_black / np.maximum(alpha, 1 / 255)
    return Image.fromarray(np.rint(np.concatenate([color, 255 * alpha], axis=2)).clip(0, 255).astype(np.uint8), "RGBA")
