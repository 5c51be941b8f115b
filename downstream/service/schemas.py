"""What the service answers, as its clients read it: every field with its meaning."""

import base64
import math
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from baselines.contract.heatmap import draw_heatmap
from baselines.contract.regions import Region
from downstream.inspection.inspection import Inspection
from downstream.service.database import StoredResult, now
from downstream.service.models import LoadedModel
from downstream.service.users import Right

MapFormat = Literal["none", "array", "png"]
MAX_NAME_LENGTH = 200
MAP_DIGITS = 6  # significant, of the highest value: float32 has little more, and JSON would write 17


def _no_number(value: object) -> object:
    """Pydantic takes a number for seconds since 1970, where the API's description has a date and a time."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError("must be a date and a time as ISO 8601 has them")


Moment = Annotated[datetime, BeforeValidator(_no_number)]


class Schema(BaseModel):
    """Pydantic would warn of field names such as model_loaded."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorResponse(Schema):
    detail: str = Field(description="One sentence for a person.", examples=["damaged or cut off (truncated file)"])


class RegionResponse(Schema):
    """Where something is, in pixels of the original image."""

    area_px: int
    box: tuple[int, int, int, int] = Field(description="Left, top, right, bottom; right and bottom not included.")
    peak: float = Field(description="The highest value of the map in it.")
    center: tuple[int, int] = Field(description="x and y of that value.")
    zone: str | None = Field(default=None, description="The zone that it lies in; null for a model without zones.")


class ZoneResponse(Schema):
    """What one zone of a model with zones says of an image."""

    name: str
    score: float = Field(description="In units of the map: the lowest threshold at which it would be good.")
    threshold: float = Field(description="The zone's own, times the threshold in force.")
    is_defective: bool


class AlignmentResponse(Schema):
    """How the product lies in an image, of a model that aligns; map and regions are those of the image as it lies."""

    turn_degrees: float = Field(description="Clockwise, from how it lies in the model's reference.")
    shift_px: tuple[float, float] = Field(description="x and y, in pixels of the original image.")
    correlation: float = Field(description="With the reference once aligned; at most 1.")
    is_aligned: bool = Field(description="If false, the image was judged as it lies.")


class ResultResponse(Schema):
    """What the database has of an inspected image."""

    id: int = Field(description="Number of the result; GET /api/results has it again.")
    created: str = Field(description="UTC.", examples=["2026-01-31T23:59:59.123Z"])
    model: str
    category: str
    name: str = Field(description="The file name that the client gave; only ever shown.")
    digest: str = Field(description="SHA-256 of the file.")
    width: int
    height: int
    anomaly_score: float = Field(description="Higher is more anomalous; defective above the threshold.")
    threshold: float
    is_defective: bool
    confidence: float = Field(description="How sure the decision is: 0.5 at the threshold, at most 1.")
    regions: list[RegionResponse] = Field(description="The highest peak first.")
    milliseconds: float = Field(description="Time in the service, from the last byte in to the answer.")
    is_kept: bool = Field(description="Whether the image itself was kept.")
    model_version: str = Field(
        description="Of the model as it was then: another once it was fitted again, or decides otherwise; empty "
        "where a result says nothing of it."
    )
    camera: str = Field(
        description="What was wrong with the image before it was judged, against accepted ones: too dark, too bright, "
        "blurred, moved, another product, frozen; joined by commas. Empty: nothing, or too few to compare with."
    )


class ImageResponse(ResultResponse):
    """The inspection of one image."""

    position: int = Field(description="Position of the image in the request, from 0.")
    reconstruction_error: float | None = Field(
        description="An auto-encoder's anomaly score, which is its reconstruction error; null for other methods."
    )
    map_threshold: float | None = Field(description="Pixels of the map above it belong to a region.")
    zones: list[ZoneResponse] = Field(
        description="Of a model with zones: any that is defective makes the image so; the score, the threshold and the "
        "map are then in multiples of the zones' own thresholds. Else empty."
    )
    alignment: AlignmentResponse | None = Field(description="Null for a model that does not align images.")
    anomaly_map: list[list[float]] | str | None = Field(
        description="As the form's `map` asks. none: null. array: rows of numbers, stretched over the whole image. "
        "png: a data: URL of a PNG with alpha to lay over the image, its colors on a scale tied to map_threshold."
    )
    is_distorted: bool = Field(description="Whether it was drawn out of shape to what the model was fitted to.")
    has_other_size: bool = Field(description="Whether it has more or fewer pixels than what the model was fitted to.")
    model_milliseconds: float = Field(description="Time of the model for the image's batch, divided by its images.")


class ImageFailure(Schema):
    position: int
    name: str
    status: int = Field(description="The HTTP status of the image had it come alone.")
    reason: str


class BatchResponse(Schema):
    results: list[ImageResponse]
    failures: list[ImageFailure]
    total_processed: int = Field(description="Number of inspected images.")
    response_time: float = Field(description="Seconds.")


class BatchErrorResponse(ErrorResponse):
    """What is wrong with a request, or with each of its images."""

    failures: list[ImageFailure] = Field(default=[], description="Each image, where none could be inspected.")


class ModelResponse(Schema):
    name: str
    is_loaded: bool = Field(description="Whether it is the one in use.")


class ModelsResponse(Schema):
    models: list[ModelResponse]


class LoadModelRequest(Schema):
    name: str = Field(min_length=1, max_length=255, description="One of GET /api/models.", examples=["hazelnut"])


class LimitsResponse(Schema):
    max_image_bytes: int
    max_image_pixels: int
    max_images_per_request: int
    max_waiting_images: int


class StatusResponse(Schema):
    model_loaded: bool
    model: str
    category: str
    method: str
    size_px: int | tuple[int, int] = Field(
        description="What images are stretched to: a square's side, or height and width."
    )
    threshold: float
    device: str
    version: str
    images_in_progress: int = Field(description="Images accepted by this worker and not answered yet.")
    user: str = Field(description="Who asks: a user, token for the one token, local where none is wanted.")
    rights: list[Right] = Field(description="What that user may do.")
    has_search: bool = Field(description="Whether there is an encoder for POST /api/search.")
    limits: LimitsResponse


class HealthResponse(Schema):
    status: Literal["ok", "unavailable"]
    model_loaded: bool = Field(description="Whether the model in use can be had.")
    database: bool = Field(description="Whether results can be written.")
    space: bool = Field(description="Whether one more image could be kept.")


class ThresholdRequest(Schema):
    # Strict, here and in other requests: true is no number.
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = Field(
        description="The new threshold; null goes back to the model's own.", examples=[1.25]
    )


class ThresholdResponse(Schema):
    model: str
    value: float = Field(description="In force now.")
    fitted: float = Field(description="The model's own, from good images.")
    false_alarm_rate: float = Field(description="The false-alarm rate that the model's own was chosen for.")
    why: str = Field(description="Where the model's own comes from.")
    map_threshold: float | None
    minimum_area_px: int = Field(description="If above 0, an image without a region is good whatever its score.")
    normal_scores: list[float] = Field(description="Scores of good images that the model did not learn from.")
    confidence_curve: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description="Confidence by the distance of a score to the threshold: pairs of distance and confidence, joined "
        "by lines; beyond the last one it stays. Empty: 0.5 at every distance."
    )


class ResultsResponse(Schema):
    results: list[ResultResponse] = Field(description="The newest first.")
    total: int = Field(description="Number of results with this filter.")
    next_before: int | None = Field(description="Give it as `before` for the next page; null: there is none.")


class MapResponse(Schema):
    """The map of an earlier result, made again of its image."""

    anomaly_map: list[list[float]] | None = Field(description="Rows of numbers, stretched over the whole image.")
    map_threshold: float | None = Field(description="Pixels of the map above it belong to a region.")
    why_none: str = Field(description="Why there is no map; empty where there is one.")


class NeighborResponse(Schema):
    distance: float = Field(description="1 - cosine, from 0 to 2.")
    origin: Literal["kept", "index"] = Field(description="kept: by the service; index: of the folder of --vectors.")
    image: str = Field(description="Path of the image, at most 512 px.", examples=["/api/images/index/3"])
    name: str
    category: str
    defect: str = Field(description="From the folder of --vectors; empty: not known.")
    is_defective: bool | None = Field(description="Latest verdict on a kept image; null: not known.")


class SearchResponse(Schema):
    neighbors: list[NeighborResponse] = Field(description="The nearest first; never the image itself.")
    num_searched: int = Field(description="Number of images searched.")


def own_version() -> str:
    """Of the installed heldout; a checkout that was never installed has none."""
    try:
        return version("heldout")
    except PackageNotFoundError:
        return "unknown"


def safe_name(name: str | None) -> str:
    """The last part of a client's file name, of printable characters, which is only ever shown."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-MAX_NAME_LENGTH:]


def stored_result(
    inspection: Inspection, loaded: LoadedModel, name: str, digest: str, milliseconds: float, is_kept: bool, camera: str
) -> StoredResult:
    """What the database keeps of an inspection."""
    return StoredResult(
        now(), loaded.name, loaded.inspector.category, name, digest, inspection.width, inspection.height,
        inspection.score, inspection.threshold, inspection.is_defective, inspection.confidence,
        [region_fields(region) for region in inspection.regions], round(milliseconds, 3), is_kept,
        loaded.fingerprint, camera, inspection.distance, inspection.disagreement,
    )  # fmt: skip


def region_fields(region: Region) -> dict:
    """A region as JSON has it."""
    return {**region.as_json(), "box": list(region.box), "center": list(region.center)}


def result_fields(result: StoredResult) -> dict:
    """The fields of ResultResponse."""
    fields = result._asdict()
    del fields["distance"], fields["disagreement"]  # what drift is seen by, and what orders the queue
    return {"anomaly_score": fields.pop("score"), **fields}


def image_response(
    result: StoredResult, inspection: Inspection, loaded: LoadedModel, position: int, map_format: MapFormat
) -> ImageResponse:
    return ImageResponse(
        **result_fields(result),
        position=position,
        reconstruction_error=inspection.score if loaded.reconstructs else None,
        map_threshold=inspection.map_threshold,
        zones=[ZoneResponse(**zone._asdict()) for zone in inspection.zones],
        alignment=inspection.alignment and AlignmentResponse(**inspection.alignment._asdict()),
        anomaly_map=encoded_map(map_format, inspection),
        is_distorted=inspection.is_distorted,
        has_other_size=inspection.has_other_size,
        model_milliseconds=round(inspection.milliseconds, 3),
    )


def encoded_map(map_format: MapFormat, inspection: Inspection) -> list | str | None:
    if map_format == "none" or inspection.anomaly_map is None:
        return None
    if map_format == "array":
        return map_rows(inspection.anomaly_map)
    limit = inspection.threshold if inspection.map_threshold is None else inspection.map_threshold
    file = BytesIO()
    transparent_heatmap(inspection.anomaly_map, limit).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def map_rows(anomaly_map: np.ndarray) -> list[list[float]]:
    highest = float(np.abs(anomaly_map).max())
    decimals = MAP_DIGITS - math.ceil(math.log10(highest)) if highest > 0 else 0
    return np.round(anomaly_map.astype(np.float64), decimals).tolist()


def transparent_heatmap(anomaly_map: np.ndarray, threshold: float) -> Image.Image:
    """The heatmap of an anomaly map (h, w) as RGBA. `draw_heatmap` blends it with an image: how much black and white
    still differ beneath it tells how opaque it is."""
    black = np.zeros((*anomaly_map.shape, 3), np.uint8)
    over_black = draw_heatmap(black, anomaly_map, threshold).astype(np.float32)
    over_white = draw_heatmap(black + 255, anomaly_map, threshold).astype(np.float32)
    alpha = (255 - (over_white - over_black).mean(axis=2, keepdims=True)) / 255
    color = over_black / np.maximum(alpha, 1 / 255)
    return Image.fromarray(np.rint(np.concatenate([color, 255 * alpha], axis=2)).clip(0, 255).astype(np.uint8), "RGBA")
