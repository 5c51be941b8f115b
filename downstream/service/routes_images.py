"""What can be asked about a picture: is it defective, and which ones are like it."""

import asyncio
import hashlib
import time
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Response, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from downstream.service.database import Filter
from downstream.service.decoding import Refused
from downstream.service.openapi import WORDS, Serving, said
from downstream.service.schemas import (
    Answer,
    BatchAnswer,
    BatchProblem,
    Failure,
    MapKind,
    NeighbourAnswer,
    SearchAnswer,
    safe_name,
)
from downstream.service.service import Service
from downstream.service.similar import Neighbour

PICTURES = APIRouter()
PICTURE_PROBLEMS = (408, 413, 415, 422, 429)
MOST_NEIGHBOURS = 100

Threshold = Annotated[
    float | None, Form(allow_inf_nan=False, description="Decide by this threshold, this once.", examples=[1.5])
]
Map = Annotated[MapKind, Form(description="How the map is to be given.")]
Keep = Annotated[bool, Form(description="Keep the picture itself, under the digest of its content.")]


@PICTURES.post("/api/test_image", responses=said(*PICTURE_PROBLEMS))
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


@PICTURES.post(
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


@PICTURES.post("/api/search", responses=said(409, *PICTURE_PROBLEMS))
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


@PICTURES.get(
    "/api/pictures/{origin}/{key}", response_class=Response,
    responses=said(404, 422) | {200: {"content": {"image/jpeg": {}}, "description": "At most 512 px."}},
)  # fmt: skip
async def picture(serving: Serving, origin: Literal["kept", "index"], key: str) -> Response:
    """A picture that was kept, by its digest, or one of the folder of --vectors, by its number there."""
    data = await asyncio.to_thread(serving.similar.shown, origin, key)
    if data is None:
        raise HTTPException(404, "there is no such picture.")
    return Response(data, media_type="image/jpeg")


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
