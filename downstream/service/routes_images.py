"""What can be asked about an image: is it defective, and which ones are like it."""

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
    NeighborAnswer,
    SearchAnswer,
    safe_name,
)
from downstream.service.service import Service
from downstream.service.similar import Neighbor

IMAGES = APIRouter()
IMAGE_PROBLEMS = (408, 413, 415, 422, 429)
MAX_NEIGHBORS = 100

Threshold = Annotated[
    float | None, Form(allow_inf_nan=False, description="Decide by this threshold, this once.", examples=[1.5])
]
Map = Annotated[MapKind, Form(description="How the map is to be given.")]
Keep = Annotated[bool, Form(description="Keep the image itself, under the digest of its content.")]


@IMAGES.post("/api/test_image", responses=said(*IMAGE_PROBLEMS))
async def test_image(
    serving: Serving,
    image: Annotated[UploadFile, File(description="PNG, JPEG, BMP, TIFF or WebP, told by content.")],
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> Answer:
    """Judge one image. The result is on disk before the answer is sent."""
    with serving.admission.enter():
        async with asyncio.timeout(serving.settings.timeout_s):
            current = await asyncio.to_thread(serving.current)
            return await serving.judge(image, current, 0, threshold, map, keep)


@IMAGES.post(
    "/api/batch_test", response_model=BatchAnswer,
    responses=said(*IMAGE_PROBLEMS) | {422: {"model": BatchProblem, "description": WORDS[422]}},
)  # fmt: skip
async def batch_test(
    serving: Serving,
    images: Annotated[list[UploadFile], File(description="ImageSet, each as for test_image.")],
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> BatchAnswer | JSONResponse:
    """Judge several images; those that cannot be judged are named with the reason. 422 if none can."""
    start_s = time.perf_counter()
    most = min(serving.settings.most_images, serving.settings.waiting)
    if len(images) > most:
        raise HTTPException(413, f"{len(images)} images in one request: at most {most} are taken.")

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
        detail = f"none of {len(images)} images can be judged; the first one: {failures[0].reason}"
        return JSONResponse(BatchProblem(detail=detail, failures=failures).model_dump(), 422)
    seconds = round(time.perf_counter() - start_s, 4)
    return BatchAnswer(results=results, failures=failures, total_processed=len(results), response_time=seconds)


@IMAGES.post("/api/search", responses=said(409, *IMAGE_PROBLEMS))
async def search(
    serving: Serving,
    image: Annotated[UploadFile, File(description="An image as for test_image; it is not kept.")],
    k: Annotated[int, Form(ge=1, le=MAX_NEIGHBORS)] = 8,
) -> SearchAnswer:
    """The images most similar to one: of those that were kept, and of the folder of --vectors."""
    similar = serving.similar
    if similar.source is None:
        raise HTTPException(409, "nothing to search with: start the service with --vectors or --encoder.")
    with serving.admission.enter():
        async with asyncio.timeout(serving.settings.timeout_s):
            data = await image.read()
            query_image = await serving.decoded(data, similar.source.size_px)
            vector = await asyncio.to_thread(similar.vector, query_image.pixels)
            digest = hashlib.sha256(data).hexdigest()
            neighbors, count = await asyncio.to_thread(similar.search, vector, k, digest)
            answers = await asyncio.to_thread(lambda: [neighbor_answer(serving, one) for one in neighbors])
    return SearchAnswer(neighbors=answers, searched=count)


@IMAGES.get(
    "/api/images/{origin}/{key}", response_class=Response,
    responses=said(404, 422) | {200: {"content": {"image/jpeg": {}}, "description": "At most 512 px."}},
)  # fmt: skip
async def image(serving: Serving, origin: Literal["kept", "index"], key: str) -> Response:
    """An image that was kept, by its digest, or one of the folder of --vectors, by its number there."""
    data = await asyncio.to_thread(serving.similar.shown, origin, key)
    if data is None:
        raise HTTPException(404, "there is no such image.")
    return Response(data, media_type="image/jpeg")


def neighbor_answer(serving: Service, found: Neighbor) -> NeighborAnswer:
    """With what is known of a kept image: how it was judged last."""
    name, category, is_defective = found.name, found.category, None
    if found.origin == "kept":
        for last in serving.store.results(Filter(digest=found.key), 1):
            name, category, is_defective = last.name, last.category, last.is_defective
    return NeighborAnswer(
        distance=found.distance, origin=found.origin, image=f"/api/images/{found.origin}/{found.key}", name=name,
        category=category, defect=found.defect, is_defective=is_defective,
    )  # fmt: skip
