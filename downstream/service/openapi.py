"""What the endpoints have in common: the service that they ask, the examples, and what else they may answer."""

import json
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from downstream.service.schemas import Problem
from downstream.service.service import Service

EXAMPLES = json.loads(Path(__file__).with_name("examples.json").read_text())
WORDS = {
    400: "The request is no request: its form cannot be read, or its host name is not served.",
    401: "The token is missing or wrong.",
    403: "From a page of another site.",
    404: "There is no such thing.",
    408: "The body took too long.",
    409: "It cannot be done now.",
    413: "Too many bytes, or too many pixels.",
    415: "Not a kind of image that is taken.",
    422: "A field is missing or wrong, or an image is damaged.",
    429: "Too much is waiting; Retry-After says when to come back.",
    503: "The answer took too long, or the database does not answer; Retry-After says when to come back.",
}


def said(*statuses: int) -> dict:
    """What else an endpoint may answer."""
    return {status: {"model": Problem, "description": WORDS[status]} for status in (400, 401, 403, 503, *statuses)}


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
