"""What operators send about results, and what they are answered."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from downstream.service.feedback.records import Spoken
from downstream.service.feedback.review_order import Reason
from downstream.service.schemas import ResultResponse, Schema

Verdict = Literal["agree", "false_alarm", "missed_defect", "unsure"]
# More than any image has pixels on a side, few enough for a float to count.
MAX_COORDINATE = 1_000_000
MAX_SHAPES = 200
MAX_POINTS = 2000
# Of all shapes together: each point of a stroke becomes eighteen of a polygon when it is exported.
MAX_ALL_POINTS = 20_000

Coordinate = Annotated[float, Field(strict=True, ge=-MAX_COORDINATE, le=MAX_COORDINATE, allow_inf_nan=False)]
Side = Annotated[int, Field(strict=True, ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Points = list[tuple[Coordinate, Coordinate]]


class StrokeRequest(Schema):
    """A round brush moved along its points."""

    radius: float = Field(strict=True, gt=0, le=MAX_COORDINATE, allow_inf_nan=False)
    points: Annotated[Points, Field(min_length=1, max_length=MAX_POINTS)]


class MarksRequest(Schema):
    """Where, in pixels of the image: all of the shapes together."""

    boxes: Annotated[list[tuple[Side, Side, Side, Side]], Field(max_length=MAX_SHAPES)] = Field(
        default=[],
        description="Left, top, right, bottom; right and bottom not included.",
        examples=[[[99, 80, 163, 123]]],
    )
    polygons: Annotated[
        list[Annotated[Points, Field(min_length=3, max_length=MAX_POINTS)]], Field(max_length=MAX_SHAPES)
    ] = []
    strokes: Annotated[list[StrokeRequest], Field(max_length=MAX_SHAPES)] = []

    @model_validator(mode="after")
    def _has_sides(self) -> Self:
        if any(left >= right or top >= bottom for left, top, right, bottom in self.boxes):
            raise ValueError("a box has a left below its right and a top below its bottom")
        if sum(map(len, self.polygons)) + sum(len(stroke.points) for stroke in self.strokes) > MAX_ALL_POINTS:
            raise ValueError(f"all marks together may have {MAX_ALL_POINTS} points: draw fewer, or boxes")
        return self

    def as_json(self) -> Mapping:
        """Without what is empty."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value}


class FeedbackRequest(Schema):
    result: int = Field(strict=True, ge=1, le=2**63 - 1, description="Number of the result that it is about.")
    verdict: Verdict = Field(
        description="agree: it is as the result says. false_alarm: it was called defective and is good. missed_defect: "
        "it was called good and is defective. unsure: somebody else has to say."
    )
    marks: MarksRequest = Field(
        default_factory=MarksRequest, description="Where the defect is; with agree and missed_defect only."
    )
    note: str = Field(default="", max_length=500, description="Only ever shown.")


class FeedbackResponse(Schema):
    id: int
    result: int
    verdict: Verdict | Literal["taken_back"]
    created: str = Field(description="UTC.")
    by: str = Field(description="Who said it: a user's name, token for the one token, local where none is wanted.")
    marks: MarksRequest
    note: str
    takes_back: int | None = Field(description="Of a record that takes another one back: that one's id.")
    taken_back_by: int | None = Field(description="The record that took this one back; null: it stands.")
    name: str = Field(description="File name of the image.")
    digest: str = Field(description="SHA-256 of the image.")
    model: str
    model_version: str = Field(description="Of the model whose result it is about.")
    was_defective: bool = Field(description="What the result said.")


class FeedbackListResponse(Schema):
    feedback: list[FeedbackResponse] = Field(description="The newest first.")
    next_before: int | None = Field(description="Give it as `before` for the next page; null: there is none.")


class ReviewResponse(Schema):
    """An image to look at, and why now."""

    result: ResultResponse
    reason: Reason
    spreads: float | None = Field(
        description="Distance of the score to the threshold in force, in the normals' spread; null: too few normals, "
        "or of another version than the one in use."
    )
    distance: float | None = Field(
        description="1 - cosine to the most similar other image that was kept; null: no encoder, or none other."
    )
    disagreement: float | None = Field(
        description="How far the model's two statistics lie apart on it, each in standard deviations of good images; "
        "null: it has one, or is of a fit of before."
    )


class ReviewVersionResponse(Schema):
    version: str = Field(description="`model_version` of its results.")
    waiting: int = Field(description="Number of kept images that it judged and that nobody has spoken of.")
    is_in_use: bool


class ReviewQueueResponse(Schema):
    images: list[ReviewResponse] = Field(description="The one to look at first first.")
    version: str = Field(description="Of the model that judged these: scores of two versions are not of one scale.")
    total: int = Field(description="Number of images of this version that wait for a word.")
    next_skip: int | None = Field(
        description="Give it as `skip` for the next page; null: there is none. Images move up as people speak "
        "of others: then begin at 0 again."
    )
    versions: list[ReviewVersionResponse] = Field(description="Those with images that wait, and the one in use, first.")


class KeptResponse(Schema):
    digest: str = Field(description="SHA-256 of the image, which is kept now.")


def feedback_response(spoken: Spoken) -> FeedbackResponse:
    fields = spoken.feedback._asdict()
    others = {name: value for name, value in spoken._asdict().items() if name != "feedback"}
    return FeedbackResponse(result=fields.pop("result_id"), **fields, **others)
