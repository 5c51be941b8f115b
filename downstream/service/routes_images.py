"""What can be asked about an image: whether it is defective, and which images are similar."""

import asyncio
import hashlib
import time
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Response, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from downstream.service.access import needs
from downstream.service.database import ResultFilter
from downstream.service.decoding import RefusedImage
from downstream.service.openapi import STATUS_DESCRIPTIONS, ServiceDependency, error_responses
from downstream.service.schemas import (
    BatchErrorResponse,
    BatchResponse,
    ImageFailure,
    ImageResponse,
    MapFormat,
    NeighborResponse,
    SearchResponse,
    safe_name,
)
from downstream.service.service import Service
from downstream.service.similar_images import SimilarImage

IMAGES = APIRouter()
IMAGE_ERRORS = (408, 413, 415, 422, 429)
MODEL_ERRORS = (404, 409)
MAX_NEIGHBORS = 100

Threshold = Annotated[
    float | None, Form(allow_inf_nan=False, description="Decide by this threshold, this once.", examples=[1.5])
]
Model = Annotated[
    str | None,
    Form(
        max_length=255,
        description="Judge by this model of GET /api/models, whichever is in use; without it, a service "
        "that was started with --route judges by the model whose product the image shows.",
        examples=["bolt"],
    ),
]
Map = Annotated[MapFormat, Form(description="Format of the anomaly map in the answer.")]
Keep = Annotated[bool, Form(description="Keep the image itself, under the digest of its content.")]


@IMAGES.post(
    "/api/test_image", dependencies=[needs("inspect")], responses=error_responses(*MODEL_ERRORS, *IMAGE_ERRORS)
)
async def test_image(
    service: ServiceDependency,
    image: Annotated[UploadFile, File(description="PNG, JPEG, BMP, TIFF or WebP, told by content.")],
    model: Model = None,
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> ImageResponse:
    """Inspect one image. The result is on disk before the answer is sent."""
    with service.admission.enter():
        async with asyncio.timeout(service.settings.timeout_s):
            current = await service.model_of(image, model)
            return await service.inspect(image, current, 0, threshold, map, keep)


@IMAGES.post(
    "/api/batch_test", response_model=BatchResponse, dependencies=[needs("inspect")],
    responses=error_responses(*MODEL_ERRORS, *IMAGE_ERRORS)
    | {422: {"model": BatchErrorResponse, "description": STATUS_DESCRIPTIONS[422]}},
)  # fmt: skip
async def batch_test(
    service: ServiceDependency,
    images: Annotated[list[UploadFile], File(description="Images, each as for test_image.")],
    model: Model = None,
    threshold: Threshold = None,
    map: Map = "none",
    keep: Keep = False,
) -> BatchResponse | JSONResponse:
    """Inspect several images; those that cannot be are named with the reason. 422 if none can."""
    start_s = time.perf_counter()
    # More than may wait at once could never be admitted, however often a client came back.
    most = min(service.settings.max_images, service.settings.max_waiting)
    if len(images) > most:
        raise HTTPException(413, f"{len(images)} images in one request: at most {most} are taken.")

    async def inspected(position: int, upload: UploadFile) -> ImageResponse | ImageFailure:
        try:
            judging = current or await service.model_of(upload)
            return await service.inspect(upload, judging, position, threshold, map, keep)
        except RefusedImage as refused:
            name = safe_name(upload.filename)
            return ImageFailure(position=position, name=name, status=refused.status, reason=f"{refused}.")

    with service.admission.enter(len(images)):
        async with asyncio.timeout(service.settings.timeout_s):
            is_routed = model is None and service.router is not None  # each image for itself
            current = None if is_routed else await asyncio.to_thread(service.current, model)
            outcomes = await asyncio.gather(*(inspected(position, upload) for position, upload in enumerate(images)))
    results = [outcome for outcome in outcomes if isinstance(outcome, ImageResponse)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, ImageFailure)]
    if not results:
        detail = f"none of {len(images)} images can be inspected; the first: {failures[0].reason}"
        return JSONResponse(BatchErrorResponse(detail=detail, failures=failures).model_dump(), 422)
    seconds = round(time.perf_counter() - start_s, 4)
    return BatchResponse(results=results, failures=failures, total_processed=len(results), response_time=seconds)


@IMAGES.post("/api/search", dependencies=[needs("inspect")], responses=error_responses(409, *IMAGE_ERRORS))
async def search(
    service: ServiceDependency,
    image: Annotated[UploadFile, File(description="An image as for test_image; it is not kept.")],
    k: Annotated[int, Form(ge=1, le=MAX_NEIGHBORS)] = 8,
) -> SearchResponse:
    """The images most similar to this one, of those that were kept and of the folder of --vectors."""
    similar = service.similar_images
    if similar.source is None:
        raise HTTPException(409, "nothing to search with: start the service with --vectors or --encoder.")
    with service.admission.enter():
        async with asyncio.timeout(service.settings.timeout_s):
            data = await image.read()
            channels = await asyncio.to_thread(service.channels_in_use)  # as kept ones were seen
            query_image = await service.decoded(data, similar.source.size_px, channels)
            vector = await asyncio.to_thread(similar.vector, query_image.pixels)
            digest = hashlib.sha256(data).hexdigest()
            neighbors, count = await asyncio.to_thread(similar.search, vector, k, digest)
            responses = await asyncio.to_thread(
                lambda: [neighbor_response(service, neighbor) for neighbor in neighbors]
            )
    return SearchResponse(neighbors=responses, num_searched=count)


@IMAGES.get(
    "/api/images/{origin}/{key}", response_class=Response, dependencies=[needs("read")],
    responses=error_responses(404, 422) | {200: {"content": {"image/jpeg": {}}, "description": "At most 512 px."}},
)  # fmt: skip
async def image(service: ServiceDependency, origin: Literal["kept", "index"], key: str) -> Response:
    """An image that was kept, by its digest, or one of the folder of --vectors, by its number there."""
    thumbnail = service.similar_images.thumbnail
    data = await asyncio.to_thread(lambda: thumbnail(origin, key, service.channels_in_use()))
    if data is None:
        raise HTTPException(404, "there is no such image.")
    return Response(data, media_type="image/jpeg")


def neighbor_response(service: Service, neighbor: SimilarImage) -> NeighborResponse:
    """With what is known of a kept image: its latest result."""
    name, category, is_defective = neighbor.name, neighbor.category, None
    if neighbor.origin == "kept":
        for last in service.database.results(ResultFilter(digest=neighbor.key), 1):
            name, category, is_defective = last.name, last.category, last.is_defective
    return NeighborResponse(
        distance=neighbor.distance, origin=neighbor.origin, image=f"/api/images/{neighbor.origin}/{neighbor.key}",
        name=name, category=category, defect=neighbor.defect, is_defective=is_defective,
    )  # fmt: skip
