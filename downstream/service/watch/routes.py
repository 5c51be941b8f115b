"""Whether all is well: the camera, the scores of what is accepted, and how often people found the model wrong."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import Field

from downstream.service.access import needs
from downstream.service.database import ResultFilter
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.schemas import Schema
from downstream.service.service import Service
from downstream.service.watch.camera import CHECK_FALSE_ALARM_RATE, REFERENCES
from downstream.service.watch.drift import CUSUM_RUN_LENGTH, KS_FALSE_ALARM_RATE, KS_WINDOW
from downstream.service.watch.rates import Rate
from downstream.service.watch.summary import SCORE_REFERENCES, Drift, drifts_of, rates_of

WATCH = APIRouter()
RECENT = 200


class CameraResponse(Schema):
    references: int = Field(description="Images that this version of the model accepted and that were learned from.")
    references_needed: int
    false_alarm_rate: float = Field(description="Of each check, for an image with which nothing is wrong.")
    recent: int = Field(description="Number of latest results that are counted below.")
    problems: dict[str, int] = Field(description="How many of those had which problem.")


class DriftResponse(Schema):
    references: int = Field(
        description="First images of this version of the model that the threshold in force accepts: others are "
        "compared with them."
    )
    references_needed: int
    count: int = Field(description="Accepted images after those.")
    ks_statistic: float | None = Field(description="Of the latest full window; null: there is none yet.")
    ks_p_value: float | None
    ks_window: int
    ks_false_alarm_rate: float = Field(description="Of a window without drift.")
    cusum_high: float | None = Field(description="In standard deviations, by ranks; null: no references yet.")
    cusum_low: float | None
    cusum_limit: float | None
    cusum_run_length: int = Field(description="Images without drift between two false alarms, on average.")
    has_drifted: bool


class RateResponse(Schema):
    count: int
    total: int
    share: float | None = Field(description="null: nobody said anything of such an image.")
    low: float = Field(description="Wilson's interval: the true share is from low to high in 95 of 100 cases.")
    high: float


class WatchResponse(Schema):
    model: str
    camera: CameraResponse
    drift: DriftResponse = Field(description="Of the scores of accepted images.")
    image_drift: DriftResponse | None = Field(
        description="Of the distances of accepted images as a whole, the mean of their patches, to the nearest good "
        "image that the model has learned; null: none is known, as of methods without such and of exported models."
    )
    false_alarms: RateResponse = Field(description="Among images that people called good.")
    misses: RateResponse = Field(
        description="Among images that people called defective. Those that are reviewed are the doubtful ones: "
        "among all images both are rarer."
    )


@WATCH.get("/api/watch", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def watch(service: ServiceDependency, model: ModelQuery = None) -> WatchResponse:
    """What is known of a model, its camera and its errors."""
    return await asyncio.to_thread(watched, service, model)


@WATCH.post(
    "/api/watch/begin_anew", dependencies=[needs("configure")], responses=error_responses(404, 408, 409, 413, 422, 429)
)
async def begin_anew(service: ServiceDependency, request: Request, model: ModelQuery = None) -> WatchResponse:
    """Learn anew what the camera usually shows, from the next accepted images: after a change that shall stay."""
    loaded = (await asyncio.to_thread(service.current, model)).loaded
    await asyncio.to_thread(service.camera.begin_anew, loaded.name, loaded.fingerprint, request.state.user.name)
    return await asyncio.to_thread(watched, service, loaded.name)


def watched(service: Service, model: str | None = None) -> WatchResponse:
    database, (loaded, threshold) = service.database, service.current(model)
    recent = database.results(ResultFilter(model=loaded.name), RECENT)
    found = [problem for result in recent for problem in filter(None, result.camera.split(", "))]
    false_alarms, misses = rates_of(database, loaded.name)
    drifts = drifts_of(database, loaded.name, loaded.fingerprint, threshold)
    return WatchResponse(
        model=loaded.name,
        camera=CameraResponse(
            references=service.camera.count(loaded.name, loaded.fingerprint), references_needed=REFERENCES,
            false_alarm_rate=CHECK_FALSE_ALARM_RATE, recent=len(recent),
            problems={problem: found.count(problem) for problem in sorted(set(found))},
        ),
        drift=drift_response(drifts.scores),
        image_drift=drift_response(drifts.images) if drifts.images.references else None,
        false_alarms=rate_response(false_alarms),
        misses=rate_response(misses),
    )  # fmt: skip


def drift_response(drift: Drift) -> DriftResponse:
    ks, sums = drift.ks, drift.cusum
    return DriftResponse(
        references=drift.references, references_needed=SCORE_REFERENCES, count=drift.count,
        ks_statistic=ks and ks.statistic, ks_p_value=ks and ks.p_value, ks_window=KS_WINDOW,
        ks_false_alarm_rate=KS_FALSE_ALARM_RATE, cusum_high=sums and sums.high, cusum_low=sums and sums.low,
        cusum_limit=sums and sums.limit, cusum_run_length=CUSUM_RUN_LENGTH, has_drifted=drift.has_drifted,
    )  # fmt: skip


def rate_response(rate: Rate) -> RateResponse:
    return RateResponse(**rate._asdict())
