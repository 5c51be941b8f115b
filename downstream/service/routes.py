"""What can be asked of the service itself: how it is, which model it uses, by which threshold.

Each endpoint is thin: what it means stands in `answers.py`, what it does in `service.py`. Those about images and
about results have files of their own; API has them all.
"""

import asyncio

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from downstream.service.openapi import Serving, said
from downstream.service.routes_images import IMAGES
from downstream.service.routes_results import RESULTS
from downstream.service.schemas import (
    HealthAnswer,
    LimitsAnswer,
    LoadRequest,
    ModelAnswer,
    ModelsAnswer,
    StatusAnswer,
    ThresholdAnswer,
    ThresholdRequest,
    own_version,
)
from downstream.service.service import Current

API = APIRouter()


@API.get("/health", responses=said(), response_model=HealthAnswer, include_in_schema=False)
@API.get("/api/health", responses=said(), response_model=HealthAnswer)
async def health(serving: Serving) -> JSONResponse:
    """Whether images can be judged and results kept: 200, else 503. Needs no token."""
    try:
        await asyncio.to_thread(serving.store.check)
        has_database = True
    except SQLAlchemyError:
        has_database = False
    answer = HealthAnswer(status="ok" if has_database else "unavailable", model_loaded=True, database=has_database)
    return JSONResponse(answer.model_dump(), 200 if has_database else 503)


@API.get("/api/status", responses=said())
async def status(serving: Serving) -> StatusAnswer:
    """Which model is in use, by which threshold, and what may be sent."""
    current, settings = await asyncio.to_thread(serving.current), serving.settings
    return StatusAnswer(
        model_loaded=True, model=current.loaded.name, category=current.loaded.inspector.category,
        method=current.loaded.method, size_px=current.loaded.inspector.size_px, threshold=current.threshold,
        device=current.loaded.device, version=own_version(), inside=serving.admission.inside,
        search=serving.similar.source is not None,
        limits=LimitsAnswer(
            image_bytes=settings.image_bytes, image_pixels=settings.image_pixels,
            images_a_request=settings.most_images, waiting_images=settings.waiting,
        ),
    )  # fmt: skip


@API.get("/api/models", responses=said())
async def models(serving: Serving) -> ModelsAnswer:
    """The models that can be loaded."""
    current = await asyncio.to_thread(serving.current)
    names = await asyncio.to_thread(serving.shelf.names)
    return ModelsAnswer(models=[ModelAnswer(name=name, is_loaded=name == current.loaded.name) for name in names])


@API.post("/api/load_model", responses=said(404, 408, 409, 413, 422, 429))
async def load_model(wanted: LoadRequest, serving: Serving) -> ThresholdAnswer:
    """Use another of the models, by its name. Images that wait are judged by the one that they came for."""
    return threshold_answer(await asyncio.to_thread(serving.choose, wanted.name))


@API.get("/api/threshold", responses=said())
async def get_threshold(serving: Serving) -> ThresholdAnswer:
    """The threshold in force, where the model's own comes from, and scores of good images to see it against."""
    return threshold_answer(await asyncio.to_thread(serving.current))


@API.put("/api/threshold", responses=said(408, 413, 422, 429))
async def put_threshold(wanted: ThresholdRequest, serving: Serving) -> ThresholdAnswer:
    """Decide by another threshold from now on, also after a restart; null goes back to the model's own."""
    return threshold_answer(await asyncio.to_thread(serving.set_threshold, wanted.value))


@API.get("/metrics", response_class=Response, responses=said() | {200: {"content": {"text/plain": {}}}})
async def metrics(serving: Serving) -> Response:
    """Figures for Prometheus."""
    serving.figures.inside.set(serving.admission.inside)
    text, media_type = serving.figures.text()
    return Response(text, headers={"Content-Type": media_type})


def threshold_answer(current: Current) -> ThresholdAnswer:
    """Where an area rule decides, the score has the area in it already, and the slider needs no other."""
    inspector = current.loaded.inspector
    limit = inspector.area_rule.threshold if inspector.area_rule else inspector.map_threshold
    return ThresholdAnswer(
        model=current.loaded.name, value=current.threshold, fitted=inspector.decision.value,
        false_alarm_rate=inspector.decision.false_alarm_rate,
        why=inspector.decision.why, map_threshold=limit and limit.value,
        minimum_area_px=0 if inspector.area_rule else inspector.minimum_area_px,
        normal_scores=inspector.decision_scores,
    )  # fmt: skip


API.include_router(IMAGES)
API.include_router(RESULTS)
