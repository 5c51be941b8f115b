"""What operators say of results: said, listed, taken back, exported; and what they should look at next."""

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Query, Request, Response, UploadFile
from starlette.exceptions import HTTPException

from downstream.service.access import needs
from downstream.service.database import StoredResult, now
from downstream.service.feedback.marks import is_within
from downstream.service.feedback.records import Feedback, FeedbackRecords
from downstream.service.feedback.review_order import review_order, spread
from downstream.service.feedback.schemas import (
    FeedbackListResponse,
    FeedbackRequest,
    FeedbackResponse,
    KeptResponse,
    ReviewQueueResponse,
    ReviewResponse,
    ReviewVersionResponse,
    feedback_response,
)
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.schemas import ResultResponse, result_fields
from downstream.service.service import Service
from downstream.service.streaming import json_lines

FEEDBACK = APIRouter()
WRITE_ERRORS = (404, 408, 409, 413, 422, 429)
MAX_ID = 2**63 - 1
MAX_PAGE = 500
# So many are put in order at a time, the latest first: to find the nearest other image of each takes its time.
MAX_CANDIDATES = 500


@FEEDBACK.post("/api/feedback", dependencies=[needs("say")], responses=error_responses(*WRITE_ERRORS))
async def feedback(said: FeedbackRequest, service: ServiceDependency, request: Request) -> FeedbackResponse:
    """Say whether a result is right, and where a defect is. Its image has to be kept: by keep=true, or by
    POST /api/keep."""
    records = FeedbackRecords(service.database)
    result = await asyncio.to_thread(_result, service, said.result)
    check(said, result)
    if await asyncio.to_thread(service.database.image, result.digest) is None:
        raise HTTPException(409, "its image was not kept, and could not be learned from: POST /api/keep takes it.")
    record = Feedback(
        result.id, said.verdict, now(), request.state.user.name, said.marks.as_json(), printable(said.note)
    )
    feedback_id = await asyncio.to_thread(records.add, record)
    return await asyncio.to_thread(_answer, records, feedback_id)


@FEEDBACK.post(
    "/api/feedback/{feedback_id}/take_back", dependencies=[needs("say")], responses=error_responses(*WRITE_ERRORS)
)
async def take_back(feedback_id: int, service: ServiceDependency, request: Request) -> FeedbackResponse:
    """Take back what was said: a further record, nothing is deleted. What was said before it counts again."""
    if not 0 < feedback_id <= MAX_ID:
        raise HTTPException(404, "there is no feedback of that number.")
    records = FeedbackRecords(service.database)
    taking_id = await asyncio.to_thread(records.take_back, feedback_id, now(), request.state.user.name)
    return await asyncio.to_thread(_answer, records, taking_id)


@FEEDBACK.get("/api/feedback", dependencies=[needs("read")], responses=error_responses(422))
async def feedback_list(
    service: ServiceDependency,
    result: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only what was said of this result.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    before: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only records of lower numbers.")] = None,
) -> FeedbackListResponse:
    """All that was said, the newest first, also what was taken back."""
    records = FeedbackRecords(service.database)
    rows = await asyncio.to_thread(records.page, limit + 1, before, result)
    following = rows[limit - 1].feedback.id if len(rows) > limit else None
    return FeedbackListResponse(feedback=[feedback_response(row) for row in rows[:limit]], next_before=following)


@FEEDBACK.get("/api/feedback/queue", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def queue(
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    skip: Annotated[int, Query(ge=0, le=MAX_ID, description="Leave out so many: `next_skip` of the page before.")] = 0,
    version: Annotated[
        str | None, Query(max_length=64, description="Judged by this version of the model; default: the one in use.")
    ] = None,
    model: ModelQuery = None,
) -> ReviewQueueResponse:
    """Images that nobody has spoken of yet, of one version of a model: by turns the one nearest to the threshold, the
    one least like any other and the one on which the model's two statistics disagree most, if it has two; among the
    latest 500, then among the 500 before those."""
    if version and not version.isprintable():
        raise HTTPException(422, "a version has printable characters only.")
    return await asyncio.to_thread(review_queue, service, limit, skip, model, version)


@FEEDBACK.get(
    "/api/feedback/export", response_class=Response, dependencies=[needs("export")],
    responses=error_responses(422)
    | {200: {"content": {"application/x-ndjson": {}}, "description": "A record a line."}},
)  # fmt: skip
async def export(
    service: ServiceDependency,
    model: Annotated[str | None, Query(max_length=255, description="Only what was said of this model.")] = None,
) -> Response:
    """What stands for each image, as lines of JSON: `detect.py learn --feedback FILE` reads them on this machine."""
    records = FeedbackRecords(service.database).exported(Path(service.settings.kept_images), model)
    return json_lines(records, "feedback.jsonl")


@FEEDBACK.post("/api/keep", dependencies=[needs("inspect")], responses=error_responses(408, 413, 415, 422, 429))
async def keep(
    service: ServiceDependency, image: Annotated[UploadFile, File(description="An image as for test_image.")]
) -> KeptResponse:
    """Keep an image without inspecting it (again)."""
    with service.admission.enter():
        async with asyncio.timeout(service.settings.timeout_s):
            data = await image.read()
            digest = hashlib.sha256(data).hexdigest()
            inspector = (await asyncio.to_thread(service.current)).loaded.inspector
            image = await service.decoded(data, inspector.size_px, inspector.channels)
            await service.keep(data, digest, image, inspector.channels)
            await asyncio.to_thread(service.database.set_kept, digest)
    return KeptResponse(digest=digest)


def check(said: FeedbackRequest, result: StoredResult) -> None:
    """Raises HTTPException (422) for what the result cannot be told."""
    if said.verdict == "false_alarm" and not result.is_defective:
        raise HTTPException(
            422, "a false alarm was called defective, and this result is good: agree, or missed_defect."
        )
    if said.verdict == "missed_defect" and result.is_defective:
        raise HTTPException(422, "this result is defective already: agree, with marks where it is.")
    marks = said.marks.as_json()
    is_defective = said.verdict == "missed_defect" or (said.verdict == "agree" and result.is_defective)
    if marks and not is_defective:
        raise HTTPException(422, "marks say where a defect is, and by this verdict there is none.")
    if not is_within(marks, result.width, result.height):
        raise HTTPException(422, f"a mark lies outside of the image's {result.width} x {result.height} pixels.")


def review_queue(
    service: Service, limit: int, skip: int, model: str | None, version: str | None
) -> ReviewQueueResponse:
    loaded, threshold = service.current(model)
    records, unit = FeedbackRecords(service.database), spread(loaded.inspector.decision_scores)
    in_use = loaded.fingerprint
    version = in_use if version is None else version
    counts = {in_use: 0} | records.waiting_counts(loaded.name)
    first = skip - skip % MAX_CANDIDATES
    waiting = records.waiting(loaded.name, version, MAX_CANDIDATES, first)
    thresholds = [threshold] * len(waiting)
    if version != in_use:  # nobody knows which one is in force for it: each score lies beside that which judged it
        thresholds, unit = [one.threshold for one in waiting], None
    known = service.similar_images.distances_to_nearest([result.digest for result in waiting])
    doubts = review_order(
        [one.score for one in waiting],
        thresholds,
        unit,
        [known.get(one.digest) for one in waiting],
        [one.disagreement for one in waiting],
    )
    images = [
        ReviewResponse(
            result=ResultResponse(**result_fields(waiting[doubt.position])),
            reason=doubt.reason, spreads=doubt.spreads, distance=doubt.distance, disagreement=doubt.disagreement,
        )
        for doubt in doubts[skip - first : skip - first + limit]
    ]  # fmt: skip
    total, following = counts.get(version, 0), skip + len(images)
    return ReviewQueueResponse(
        images=images, version=version, total=total, next_skip=following if images and following < total else None,
        versions=[
            ReviewVersionResponse(version=one, waiting=count, is_in_use=one == in_use)
            for one, count in counts.items()
            if count or one == in_use
        ],
    )  # fmt: skip


def printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c == "\n")


def _result(service: Service, result_id: int) -> StoredResult:
    found = service.database.result(result_id)
    if found is None:
        raise HTTPException(404, "there is no result of that number.")
    return found


def _answer(records: FeedbackRecords, feedback_id: int) -> FeedbackResponse:
    (spoken,) = records.page(1, feedback_id + 1)
    return feedback_response(spoken)
