"""What the endpoints' descriptions have in common: the service that they ask, examples, answers to what is wrong."""

import json
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Request

from downstream.service.schemas import ErrorResponse
from downstream.service.service import Service

EXAMPLES = json.loads(Path(__file__).with_name("examples.json").read_text())
STATUS_DESCRIPTIONS = {
    400: "The form cannot be read, or the host name is not served.",
    401: "The token is missing or wrong.",
    403: "From a page of another site, or of a user whose role may not.",
    404: "There is nothing of that name.",
    408: "The body took too long.",
    409: "It cannot be done now.",
    413: "Too many bytes, or too many pixels.",
    415: "Not an image format that is taken.",
    422: "A field is missing or wrong, or an image is damaged.",
    429: "Too much is waiting; Retry-After says when to come back.",
    507: "Results or images cannot be kept, as where no space is left; nothing was answered that is not kept.",
    503: "The answer took too long, or the database does not answer; Retry-After says when to come back.",
}


def error_responses(*statuses: int) -> dict:
    """What an endpoint may answer where something is wrong, whatever the request, and by these statuses."""
    all_statuses = (400, 401, 403, 503, 507, *statuses)
    return {status: {"model": ErrorResponse, "description": STATUS_DESCRIPTIONS[status]} for status in all_statuses}


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


# Of a service that judges several products: which one a request is about.
ModelQuery = Annotated[str | None, Query(max_length=255, description="Of this model; default is the one in use.")]
ServiceDependency = Annotated[Service, Depends(service_of)]
