"""Where a model looks, and where it shall: a region of interest that is drawn on the dashboard.

A region is part of what a model learned: patches outside of it are in no statistics, threshold or score. So one that is
drawn for a model that is there decides nothing. It is kept for that model, also while it is fitted anew, as a roi.json
for `detect.py fit --roi`, and comes into force with the version that was fitted with it.
"""

import asyncio
import json
import shlex
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import Field, JsonValue
from starlette.exceptions import HTTPException

from downstream.inspection.inspector import Inspector
from downstream.inspection.roi import DrawnRoi, roi_of
from downstream.inspection.zones import zone_rates
from downstream.service.access import needs
from downstream.service.audit.log import add_change
from downstream.service.database import ResultFilter, read_setting, read_stored, write_setting
from downstream.service.models import LoadedModel
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.schemas import Schema
from downstream.service.service import Service
from downstream.service.users import User
from pretrain.command import UserError
from pretrain.data.size import distorts, named

ROI = APIRouter()
# Of a region as JSON: some 5000 points. The audit log has it twice for each change.
MAX_CHARACTERS = 1 << 16
NEWEST, MAX_IMAGES = 200, 20
EXAMPLE = {"format": 1, "image_size": [640, 480], "ignore": [[[200, 60], [240, 60], [220, 110]]]}

RoiJson = dict[str, JsonValue]


class RoiRequest(Schema):
    roi: RoiJson | None = Field(
        description="As a roi.json has it (docs/detection.md), with image_size; null forgets what was drawn.",
        examples=[EXAMPLE],
    )


class ReferenceResponse(Schema):
    """An image that was kept, to draw on."""

    path: str = Field(description="At most 512 px of it.", examples=["/api/images/kept/DIGEST"])
    name: str
    width: int = Field(description="Of the original.")
    height: int


class RoiResponse(Schema):
    model: str
    in_force: RoiJson | None = Field(
        description="The polygons that the model was fitted with, as a roi.json; null: none."
    )
    has_mask: bool = Field(description="Whether the model was fitted with a mask, which has no polygons.")
    drawn: RoiJson | None = Field(description="What was drawn here for its next fit; null: nothing, or it is in force.")
    refusal: str | None = Field(description="Why no region can be kept for this model; null: one can.")
    command: str | None = Field(
        description="What fits the model with roi.json, as far as it says how it was fitted; null: for whom may not "
        "configure."
    )
    images: list[ReferenceResponse] = Field(description="Images of the model that were kept, the newest first.")


@ROI.get("/api/roi", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def get_roi(service: ServiceDependency, request: Request, model: ModelQuery = None) -> RoiResponse:
    """Where a model looks, what was drawn for its next fit, and images to draw on."""
    return await asyncio.to_thread(roi_response, service, model, request.state.user)


@ROI.put("/api/roi", dependencies=[needs("configure")], responses=error_responses(404, 408, 409, 413, 422, 429))
async def put_roi(
    wanted: RoiRequest, service: ServiceDependency, request: Request, model: ModelQuery = None
) -> RoiResponse:
    """Keep a region for the model's next fit. It changes no verdict until the model is fitted with it."""
    return await asyncio.to_thread(keep, service, model, wanted.roi, request.state.user)


def keep(service: Service, model: str | None, roi: RoiJson | None, by: User) -> RoiResponse:
    """Raises UserError for a model that takes none, and HTTPException (413, 422) for what is no region of its
    images."""
    loaded = service.current(model).loaded
    if reason := refusal(loaded, service.models.path_of(loaded.name)):
        raise UserError(reason)
    try:
        after = None if roi is None else as_stored(checked(roi, loaded.inspector))
    except UserError as error:
        raise HTTPException(422, str(error)) from None
    text = None if after is None else json.dumps(after)
    if text and len(text) > MAX_CHARACTERS:
        raise HTTPException(413, f"a region may have {MAX_CHARACTERS // 1024} KiB as JSON: draw it with fewer points.")
    with service.database.alone() as connection:
        before = read_setting(connection, setting_name(loaded.name))
        before = before and read_stored(before, dict, f"the region of {loaded.name}")
        write_setting(connection, setting_name(loaded.name), text)
        add_change(connection, by.name, "drawn region", loaded.name, before, after)
    return roi_response(service, loaded.name, by)


def checked(roi: RoiJson, inspector: Inspector) -> DrawnRoi:
    """A region as `detect.py fit` checks it, and of the shape of the model's images. Raises UserError."""
    try:
        drawn = DrawnRoi.from_json(roi)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"{error}.") from None
    size, metadata = drawn.image_size, inspector.metadata
    if size is None:
        raise UserError("it does not say what it was drawn on: give image_size, [width, height] in pixels.")
    aspect = metadata.get("aspect")
    if isinstance(aspect, float) and aspect > 0 and distorts(aspect, *size):
        raise UserError(
            f"it was drawn on an image of {named(size)} px, and the model was fitted to images of another shape: "
            "draw it on one of those."
        )
    roi_of(drawn, "the drawing", size, inspector.size_px, inspector.minimum_area_px)
    zone_rates(drawn.zones, metadata.get("false_alarm_rate", inspector.threshold.false_alarm_rate))
    return drawn


def refusal(loaded: LoadedModel, path: Path) -> str | None:
    """Why a model takes no region that is drawn for it; none where it does."""
    if path.is_file():
        return f"{loaded.name} is exported, and looks where it was fitted to: draw for the model of its folder."
    if not hasattr(loaded.inspector.method, "look_within"):
        return f"{loaded.method} sees images as a whole: padim, patchcore, fused and residual take a region."
    return None


def roi_response(service: Service, model: str | None, user: User) -> RoiResponse:
    loaded = service.current(model).loaded
    inspector, path = loaded.inspector, service.models.path_of(loaded.name)
    in_force = as_stored(inspector.drawn_roi) if inspector.drawn_roi else None
    stored = service.database.settings().get(setting_name(loaded.name))
    drawn = None if stored is None else read_stored(stored, dict, f"the region of {loaded.name}")
    return RoiResponse(
        model=loaded.name,
        in_force=in_force,
        has_mask=inspector.roi is not None and in_force is None,
        drawn=None if drawn == in_force else drawn,
        refusal=refusal(loaded, path),
        command=fit_command(inspector, path) if "configure" in user.rights else None,
        images=reference_images(service, loaded.name),
    )


def reference_images(service: Service, model: str) -> list[ReferenceResponse]:
    results = service.database.results(ResultFilter(model=model, is_kept=True), NEWEST)
    newest = list({result.digest: result for result in reversed(results)}.values())[::-1][:MAX_IMAGES]
    return [
        ReferenceResponse(
            path=f"/api/images/kept/{result.digest}", name=result.name, width=result.width, height=result.height
        )
        for result in newest
    ]


def fit_command(inspector: Inspector, path: Path) -> str:
    """As it is typed on the machine of the service."""
    metadata = inspector.metadata
    # Of a model that was fitted from Python, or before they were written down: what is known of it.
    guessed = ["--data", "FOLDER_OF_GOOD_IMAGES", "--method", str(metadata.get("method", "fused"))]
    arguments = metadata.get("arguments", guessed)
    if inspector.alignment and "--reference" not in arguments:
        arguments = [*arguments, *(["--align"] if "--align" not in arguments else []), "--reference", "IMAGE"]
    return shlex.join(["python", "downstream/detect.py", "fit", *arguments, "--roi", "roi.json", "--out", str(path)])


def as_stored(drawn: DrawnRoi) -> RoiJson:
    """As it comes back from the database: lists, and no tuples."""
    return json.loads(json.dumps(drawn.as_json()))


def setting_name(model: str) -> str:
    return f"drawn region {model}"
