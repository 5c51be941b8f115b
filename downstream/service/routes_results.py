"""What can be asked about earlier results: pages, filters, and all of them as CSV."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from downstream.inspection.interchange import csv_line
from downstream.service.access import needs
from downstream.service.database import ResultFilter, as_moment
from downstream.service.decoding import RefusedImage
from downstream.service.models import NoSuchModel
from downstream.service.openapi import EXAMPLES, ServiceDependency, error_responses
from downstream.service.schemas import MapResponse, Moment, ResultResponse, ResultsResponse, map_rows, result_fields
from downstream.service.service import Service
from downstream.service.streaming import pages
from pretrain.command import UserError

RESULTS = APIRouter()
MAX_RESULTS = 500
MAX_ID = 2**63 - 1
CSV_FIELDS = [name for name in ResultResponse.model_fields if name != "regions"]


def moment(value: datetime | None) -> str | None:
    """As it is stored."""
    try:
        return None if value is None else as_moment(value)
    except OverflowError:
        raise HTTPException(422, "since and until must be of the years 1 to 9999.") from None


def wanted_results(
    model: Annotated[str | None, Query(max_length=255)] = None,
    is_defective: bool | None = None,
    name: Annotated[str | None, Query(max_length=200, description="Part of the file name.")] = None,
    digest: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    since: Moment | None = None,
    until: Moment | None = None,
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> ResultFilter:
    for text in (model, name):
        if text and not text.isprintable():
            raise HTTPException(422, "model and name have printable characters only.")
    return ResultFilter(model, is_defective, name, digest, moment(since), moment(until), min_score, max_score)


@RESULTS.get(
    "/api/results", response_model=ResultsResponse, dependencies=[needs("read")],
    responses=error_responses(422)
    | {200: {"content": {"application/json": {}, "text/csv": {"example": EXAMPLES["csv"]}}}},
)  # fmt: skip
async def results(
    service: ServiceDependency,
    wanted: Annotated[ResultFilter, Depends(wanted_results)],
    limit: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 50,
    before: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only results of lower numbers.")] = None,
    format: Annotated[Literal["json", "csv"], Query(description="csv gives all that pass, without pages.")] = "json",
) -> Response:
    """Earlier results, the newest first."""
    database = service.database
    if format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="results.csv"'}
        return StreamingResponse(as_csv(service, wanted), media_type="text/csv; charset=utf-8", headers=headers)
    rows = await asyncio.to_thread(database.results, wanted, limit + 1, before)
    total = await asyncio.to_thread(database.count, wanted)
    page = rows[:limit]
    following = page[-1].id if len(rows) > limit else None
    shown = [ResultResponse(**result_fields(result)) for result in page]
    return JSONResponse(ResultsResponse(results=shown, total=total, next_before=following).model_dump())


@RESULTS.get("/api/results/{result_id}/map", dependencies=[needs("read")], responses=error_responses(404, 422, 429))
async def result_map(service: ServiceDependency, result_id: Annotated[int, Path(ge=0, le=MAX_ID)]) -> MapResponse:
    """The anomaly map of an earlier result, made again of its image, which has to be kept, by the version of the model
    that judged it, which has to be in use."""
    result = await asyncio.to_thread(service.database.result, result_id)
    if result is None:
        raise HTTPException(404, "there is no result of that number.")
    try:
        with service.admission.enter():
            async with asyncio.timeout(service.settings.timeout_s):
                inspection = await service.inspect_again(result)
    except (NoSuchModel, RefusedImage, UserError) as error:
        return MapResponse(anomaly_map=None, map_threshold=None, why_none=str(error))
    if inspection.anomaly_map is None:
        return MapResponse(anomaly_map=None, map_threshold=None, why_none="its model makes no maps.")
    return MapResponse(
        anomaly_map=map_rows(inspection.anomaly_map), map_threshold=inspection.map_threshold, why_none=""
    )


async def as_csv(service: Service, wanted: ResultFilter) -> AsyncIterator[str]:
    """A line a result, page by page."""
    yield csv_line([*CSV_FIELDS, "regions", "zones"])
    async for page in pages(service.database.all_results(wanted)):
        lines = []
        for row in page:
            fields = result_fields(row)
            zones = dict.fromkeys(region["zone"] for region in row.regions if "zone" in region)
            lines.append(csv_line([*(fields[name] for name in CSV_FIELDS), len(row.regions), ", ".join(zones)]))
        yield "".join(lines)
