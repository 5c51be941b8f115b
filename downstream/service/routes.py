"""What can be asked of the service itself: how it is, which model it uses, by which threshold.

Each endpoint is thin: what it means stands in `schemas.py`, what it does in `service.py`. Those about images and
about results have files of their own; API has them all.
"""

import asyncio
import math
import time
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from downstream.service.access import needs
from downstream.service.audit.routes import AUDIT
from downstream.service.feedback.routes import FEEDBACK
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.routes_images import IMAGES
from downstream.service.routes_learning import LEARNING
from downstream.service.routes_products import PRODUCTS
from downstream.service.routes_results import RESULTS
from downstream.service.routes_roi import ROI
from downstream.service.routes_versions import VERSIONS
from downstream.service.schemas import (
    HealthResponse,
    LimitsResponse,
    LoadModelRequest,
    ModelResponse,
    ModelsResponse,
    StatusResponse,
    ThresholdRequest,
    ThresholdResponse,
    own_version,
)
from downstream.service.service import Current, Service
from downstream.service.watch.routes import WATCH
from downstream.service.watch.summary import Drift, drifts_of, rates_of

API = APIRouter()
# Prometheus asks every quarter of a minute or more rarely; many that ask at once cost no more than one.
WATCHED_S = 5.0


@API.get("/health", responses=error_responses(), response_model=HealthResponse, include_in_schema=False)
@API.get("/api/health", responses=error_responses(), response_model=HealthResponse)
async def health(service: ServiceDependency) -> JSONResponse:
    """Whether images can be inspected, and results and images kept: 200, else 503. Needs no token."""
    name = service.default_model
    try:
        await asyncio.to_thread(service.database.check)
        name, has_database = await asyncio.to_thread(service.name_in_use), True
    except SQLAlchemyError:
        has_database = False
    has_space = await asyncio.to_thread(service.has_space)
    has_model = await asyncio.to_thread(service.models.is_well, name)
    is_well = has_database and has_space and has_model
    answer = HealthResponse(
        status="ok" if is_well else "unavailable", model_loaded=has_model, database=has_database, space=has_space
    )
    return JSONResponse(answer.model_dump(), 200 if is_well else 503)


@API.get("/api/status", dependencies=[needs("read")], responses=error_responses())
async def status(service: ServiceDependency, request: Request) -> StatusResponse:
    """Which model is in use, by which threshold, and what may be sent."""
    current, settings = await asyncio.to_thread(service.current), service.settings
    return StatusResponse(
        model_loaded=True, model=current.loaded.name, category=current.loaded.inspector.category,
        method=current.loaded.method, size_px=current.loaded.inspector.size_px, threshold=current.threshold,
        device=current.loaded.device, version=own_version(), images_in_progress=service.admission.in_progress,
        has_search=service.similar_images.source is not None,
        user=request.state.user.name, rights=list(request.state.user.rights),
        limits=LimitsResponse(
            max_image_bytes=settings.max_image_bytes, max_image_pixels=settings.max_image_pixels,
            max_images_per_request=settings.max_images, max_waiting_images=settings.max_waiting,
        ),
    )  # fmt: skip


@API.get("/api/models", dependencies=[needs("read")], responses=error_responses())
async def models(service: ServiceDependency) -> ModelsResponse:
    """The models that can be loaded, also where the one in use is damaged."""
    in_use = await asyncio.to_thread(service.name_in_use)
    names = await asyncio.to_thread(service.models.names)
    return ModelsResponse(models=[ModelResponse(name=name, is_loaded=name == in_use) for name in names])


@API.post("/api/load_model", dependencies=[needs("configure")], responses=error_responses(404, 408, 409, 413, 422, 429))
async def load_model(wanted: LoadModelRequest, service: ServiceDependency, request: Request) -> ThresholdResponse:
    """Use another of the models, by its name. Images that wait are inspected by the one that they came for."""
    return threshold_response(await asyncio.to_thread(service.use_model, wanted.name, request.state.user.name))


@API.get("/api/threshold", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def get_threshold(service: ServiceDependency, model: ModelQuery = None) -> ThresholdResponse:
    """The threshold in force, where the model's own comes from, and scores of good images to see it against."""
    return threshold_response(await asyncio.to_thread(service.current, model))


@API.put("/api/threshold", dependencies=[needs("configure")], responses=error_responses(404, 408, 409, 413, 422, 429))
async def put_threshold(
    wanted: ThresholdRequest, service: ServiceDependency, request: Request, model: ModelQuery = None
) -> ThresholdResponse:
    """Decide by another threshold from now on, also after a restart; null goes back to the model's own."""
    by = request.state.user.name
    return threshold_response(await asyncio.to_thread(service.set_threshold, wanted.value, by, model))


@API.get(
    "/metrics", response_class=Response, dependencies=[needs("read")],
    responses=error_responses() | {200: {"content": {"text/plain": {}}}},
)  # fmt: skip
async def metrics(service: ServiceDependency) -> Response:
    """Metrics for Prometheus."""
    service.metrics.in_progress.set(service.admission.in_progress)
    with suppress(SQLAlchemyError):  # the others are known without a database
        await asyncio.to_thread(set_watched, service)
    text, media_type = service.metrics.text()
    return Response(text, headers={"Content-Type": media_type})


def set_watched(service: Service) -> None:
    """Gauges of every model in memory, as they were at most WATCHED_S ago, however often they are asked for. None is
    loaded for it: one that is gone or damaged would hide the others, and each would put another out of memory."""
    if time.monotonic() < service.metrics.watched_until_s:
        return
    service.metrics.watched_until_s = time.monotonic() + WATCHED_S
    values = {current.loaded.name: watched_figures(service, current) for current in service.in_memory()}
    gone = service.metrics.watched_models - values.keys() - {*service.models.names()}  # not those out of memory
    for model, figures in [*values.items(), *((model, {}) for model in gone)]:
        for name, gauge in service.metrics.watched.items():
            value = figures.get(name)
            gauge.labels(model).set(math.nan if value is None else value)
    service.metrics.watched_models = (service.metrics.watched_models | values.keys()) - gone


def watched_figures(service: Service, current: Current) -> dict[str, float | None]:
    """What GET /api/watch says of a model, as numbers."""
    loaded, threshold = current
    drifts = drifts_of(service.database, loaded.name, loaded.fingerprint, threshold)
    false_alarms, misses = rates_of(service.database, loaded.name)
    return {
        **drift_figures("drift", drifts.scores),
        **(drift_figures("image_drift", drifts.images) if drifts.images.references else {}),
        "feedback_false_alarm_share": false_alarms.share, "feedback_miss_share": misses.share,
    }  # fmt: skip


def drift_figures(name: str, drift: Drift) -> dict[str, float | None]:
    ks, sums = drift.ks, drift.cusum
    return {
        f"{name}_ks_p_value": ks and ks.p_value,
        f"{name}_cusum": sums and max(sums.high, sums.low) / sums.limit,
        name: float(drift.has_drifted),
    }


def threshold_response(current: Current) -> ThresholdResponse:
    """With an area or zone rule areas are in the score already: the page needs no minimum area to decide again."""
    inspector = current.loaded.inspector
    limit = inspector.rule.threshold if inspector.rule else inspector.map_threshold
    return ThresholdResponse(
        model=current.loaded.name, value=current.threshold, fitted=inspector.decision.value,
        false_alarm_rate=inspector.decision.false_alarm_rate,
        why=inspector.decision.why, map_threshold=limit and limit.value,
        minimum_area_px=0 if inspector.rule else inspector.minimum_area_px,
        normal_scores=inspector.decision_scores, confidence_curve=current.loaded.confidence_curve,
    )  # fmt: skip


API.include_router(IMAGES)
API.include_router(RESULTS)
API.include_router(FEEDBACK)
API.include_router(AUDIT)
API.include_router(WATCH)
API.include_router(VERSIONS)
API.include_router(LEARNING)
API.include_router(PRODUCTS)
API.include_router(ROI)
