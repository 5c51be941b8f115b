"""What can be asked of the service. Each endpoint is thin: what it means stands in `answers.py`, what it does in
`service.py`."""

import asyncio
import csv
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Request, Response, UploadFile
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from downstream.answers import (
    Answer,
    BatchAnswer,
    BatchProblem,
    Failure,
    HealthAnswer,
    Judged,
    LimitsAnswer,
    LoadRequest,
    MapKind,
    ModelAnswer,
    ModelsAnswer,
    NeighbourAnswer,
    Problem,
    ResultsAnswer,
    SearchAnswer,
    StatusAnswer,
    ThresholdAnswer,
    ThresholdRequest,
    judged,
    own_version,
    safe_name,
)
from downstream.decoding import Refused
from downstream.service import Current, Service
from downstream.similar import Neighbour
from downstream.store import Filter

API = APIRouter()
EXAMPLES = json.loads(Path(__file__).with_name("serve_examples.json").read_text())
MOST_RESULTS, MOST_NEIGHBOURS = 500, 100
LARGEST_ID = 2**63 - 1
CSV_FIELDS = [name for name in Judged.model_fields if name != "regions"]
# A spreadsheet takes what begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

WORDS = {
    400: "The request is no request: its form cannot be read, or its host name is not served.",
    401: "The token is missing or wrong.",
    403: "From a page of another site.",
    404: "There is no such thing.",
    408: "The body took too long.",
    409: "It cannot be done now.",
    413: "Too many bytes, or too many pixels.",
    415: "Not a kind of picture that is taken.",
    422: "A field is missing or wrong, or a picture is damaged.",
    429: "Too much is waiting; Retry-After says when to come back.",
    503: "The answer took too long, or the database does not answer; Retry-After says when to come back.",
}


def said(*statuses: int) -> dict:
    """What else an endpoint may answer."""
    return {status: {"model": Problem, "description": WORDS[status]} for status in (400, 401, 403, 503, *statuses)}


PICTURE_PROBLEMS = (408, 413, 415, 422, 429)


def with_examples(description: dict) -> dict:
    """An OpenAPI description with a real example of each answer, which FastAPI would cut where it says null."""
    for path, operations in description["paths"].items():
        example = EXAMPLES.get(path.removeprefix("/api/"))
        for operation in operations.values():
            if example is not None:
                operation["responses"]["200"]["content"]["application/json"]["example"] = example
    return description


def service_of(request: Request) -> Service:
    return request.app.state.service


Serving = Annotated[Service, Depends(service_of)]
Threshold = Annotated[
    float | None, Form(allow_inf_nan=False, description="Decide by this threshold, this once.", examples=[1.5])
]
Map = Annotated[MapKind, Form(description="How the map is to be given.")]
Keep = Annotated[bool, Form(description="Keep the picture itself, under the digest of its content.")]


@API.get("/health", responses=said(), response_model=HealthAnswer, include_in_schema=False)
@API.get("/api/health", responses=said(), response_model=HealthAnswer)
async def health(serving: Serving) -> JSONResponse:
    """Whether pictures can be judged and results kept: 200, else 503. Needs no token."""
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
        device="cpu", version=own_version(), inside=serving.admission.inside,
        search=serving.similar.source is not None,
        limits=LimitsAnswer(
            picture_bytes=settings.picture_bytes, picture_pixels=settings.picture_pixels,
            pictures_a_request=settings.most_pictures, waiting_pictures=settings.waiting,
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
    """Use another of the models, by its name. Pictures that wait are judged by the one that they came for."""
    return threshold_answer(await asyncio.to_thread(serving.choose, wanted.name))


@API.get("/api/threshold", responses=said())
async def get_threshold(serving: Serving) -> ThresholdAnswer:
    """The threshold in force, where the model's own comes from, and scores of good pictures to see it against."""
    return threshold_answer(await asyncio.to_thread(serving.current))


@API.put("/api/threshold", responses=said(408, 413, 422, 429))
async def put_threshold(wanted: ThresholdRequest, serving: Serving) -> ThresholdAnswer:
    """Decide by another threshold from now on, also after a restart; null goes back to the model's own."""
    return threshold_answer(await asyncio.to_thread(serving.set_threshold, wanted.value))


@API.post("/api/test_image", responses=said(*PICTURE_PROBLEMS))
async def test_image(
    serving: Serving,
    image: Annotated[UploadFile, File(description="PNG, JPEG, BMP, TIFF or WebP, told by content.")],
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> Answer:
    """Judge one picture. The result is on disk before the answer is sent."""
    with serving.admission.enter():
        async with asyncio.timeout(serving.settings.timeout_s):
            current = await asyncio.to_thread(serving.current)
            return await serving.judge(image, current, 0, threshold, map, keep)


@API.post(
    "/api/batch_test", response_model=BatchAnswer,
    responses=said(*PICTURE_PROBLEMS) | {422: {"model": BatchProblem, "description": WORDS[422]}},
)  # fmt: skip
async def batch_test(
    serving: Serving,
    images: Annotated[list[UploadFile], File(description="Pictures, each as for test_image.")],
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> BatchAnswer | JSONResponse:
    """Judge several pictures; those that cannot be judged are named with the reason. 422 if none can."""
    start_s = time.perf_counter()
    most = min(serving.settings.most_pictures, serving.settings.waiting)
    if len(images) > most:
        raise HTTPException(413, f"{len(images)} pictures in one request: at most {most} are taken.")

    async def one(position: int, upload: UploadFile) -> Answer | Failure:
        try:
            return await serving.judge(upload, current, position, threshold, map, keep)
        except Refused as refused:
            name = safe_name(upload.filename)
            return Failure(position=position, name=name, status=refused.status, reason=f"{refused}.")

    with serving.admission.enter(len(images)):
        async with asyncio.timeout(serving.settings.timeout_s):
            current = await asyncio.to_thread(serving.current)
            outcomes = await asyncio.gather(*(one(position, upload) for position, upload in enumerate(images)))
    results = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if not results:
        detail = f"none of {len(images)} pictures can be judged; the first one: {failures[0].reason}"
        return JSONResponse(BatchProblem(detail=detail, failures=failures).model_dump(), 422)
    seconds = round(time.perf_counter() - start_s, 4)
    return BatchAnswer(results=results, failures=failures, total_processed=len(results), response_time=seconds)


@API.post("/api/search", responses=said(409, *PICTURE_PROBLEMS))
async def search(
    serving: Serving,
    image: Annotated[UploadFile, File(description="A picture as for test_image; it is not kept.")],
    k: Annotated[int, Form(ge=1, le=MOST_NEIGHBOURS)] = 8,
) -> SearchAnswer:
    """The pictures most similar to one: of those that were kept, and of the folder of --vectors."""
    similar = serving.similar
    if similar.source is None:
        raise HTTPException(409, "nothing to search with: start the service with --vectors or --encoder.")
    with serving.admission.enter():
        async with asyncio.timeout(serving.settings.timeout_s):
            data = await image.read()
            picture = await serving.decoded(data, similar.source.size_px)
            vector = await asyncio.to_thread(similar.vector, picture.pixels)
            digest = hashlib.sha256(data).hexdigest()
            neighbours, count = await asyncio.to_thread(similar.search, vector, k, digest)
            answers = await asyncio.to_thread(lambda: [neighbour_answer(serving, one) for one in neighbours])
    return SearchAnswer(neighbours=answers, searched=count)


@API.get(
    "/api/pictures/{origin}/{key}", response_class=Response,
    responses=said(404, 422) | {200: {"content": {"image/jpeg": {}}, "description": "At most 512 px."}},
)  # fmt: skip
async def picture(serving: Serving, origin: Literal["kept", "index"], key: str) -> Response:
    """A picture that was kept, by its digest, or one of the folder of --vectors, by its number there."""
    data = await asyncio.to_thread(serving.similar.shown, origin, key)
    if data is None:
        raise HTTPException(404, "there is no such picture.")
    return Response(data, media_type="image/jpeg")


def moment(value: datetime | None) -> str | None:
    """As it is stored. What comes without a zone is UTC."""
    if value is None:
        return None
    try:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise HTTPException(422, "since and until must be of the years 1 to 9999.") from None
    return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def wanted_results(
    model: Annotated[str | None, Query(max_length=255)] = None,
    is_defective: bool | None = None,
    name: Annotated[str | None, Query(max_length=200, description="A part of the file's name.")] = None,
    digest: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    since: datetime | None = None,
    until: datetime | None = None,
    least_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    most_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Filter:
    for text in (model, name):
        if text and not text.isprintable():
            raise HTTPException(422, "model and name have printable characters only.")
    return Filter(model, is_defective, name, digest, moment(since), moment(until), least_score, most_score)


@API.get(
    "/api/results", response_model=ResultsAnswer,
    responses=said(422) | {200: {"content": {"application/json": {}, "text/csv": {"example": EXAMPLES["csv"]}}}},
)  # fmt: skip
async def results(
    serving: Serving,
    wanted: Annotated[Filter, Depends(wanted_results)],
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 50,
    before: Annotated[int | None, Query(ge=0, le=LARGEST_ID, description="Only results of lower numbers.")] = None,
    format: Annotated[Literal["json", "csv"], Query(description="csv gives all that pass, without pages.")] = "json",
) -> Response:
    """What was answered, the newest first."""
    store = serving.store
    if format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="results.csv"'}
        return StreamingResponse(as_csv(serving, wanted), media_type="text/csv; charset=utf-8", headers=headers)
    found = await asyncio.to_thread(store.results, wanted, limit + 1, before)
    total = await asyncio.to_thread(store.count, wanted)
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    answer = ResultsAnswer(results=[Judged(**judged(one)) for one in page], total=total, next_before=following)
    return JSONResponse(answer.model_dump())


async def as_csv(serving: Service, wanted: Filter) -> AsyncIterator[str]:
    """A line a result, page by page."""
    rows = serving.store.every(wanted)
    yield line_of([*CSV_FIELDS, "regions"])
    while page := await asyncio.to_thread(lambda: [row for row, _ in zip(rows, range(500), strict=False)]):
        lines = []
        for row in page:
            fields = judged(row)
            lines.append(line_of([*(fields[name] for name in CSV_FIELDS), len(row.regions)]))
        yield "".join(lines)


def line_of(values: list) -> str:
    file = io.StringIO()
    csv.writer(file).writerow(f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v for v in values)
    return file.getvalue()


@API.get("/metrics", response_class=Response, responses=said() | {200: {"content": {"text/plain": {}}}})
async def metrics(serving: Serving) -> Response:
    """Figures for Prometheus."""
    serving.figures.inside.set(serving.admission.inside)
    text, media_type = serving.figures.text()
    return Response(text, headers={"Content-Type": media_type})


def threshold_answer(current: Current) -> ThresholdAnswer:
    inspector = current.loaded.inspector
    return ThresholdAnswer(
        model=current.loaded.name, value=current.threshold, fitted=inspector.threshold.value,
        rate=inspector.threshold.rate, why=inspector.threshold.why,
        map_threshold=inspector.map_threshold and inspector.map_threshold.value,
        minimum_area_px=inspector.minimum_area_px, normal_scores=inspector.normal_scores,
    )  # fmt: skip


def neighbour_answer(serving: Service, found: Neighbour) -> NeighbourAnswer:
    """With what is known of a kept picture: how it was judged last."""
    name, category, is_defective = found.name, found.category, None
    if found.origin == "kept":
        for last in serving.store.results(Filter(digest=found.key), 1):
            name, category, is_defective = last.name, last.category, last.is_defective
    return NeighbourAnswer(
        distance=found.distance, origin=found.origin, picture=f"/api/pictures/{found.origin}/{found.key}", name=name,
        category=category, defect=found.defect, is_defective=is_defective,
    )  # fmt: skip
