"""Who changed what: by page, as a file, and whether all of it is there."""

import asyncio
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field, JsonValue

from downstream.service.access import needs
from downstream.service.audit.chain import Entry
from downstream.service.audit.log import MAX_NUMBER, all_faults, entries, last_entry, page_before
from downstream.service.openapi import ServiceDependency, error_responses
from downstream.service.schemas import Schema
from downstream.service.streaming import json_lines

AUDIT = APIRouter(dependencies=[needs("audit")])
MAX_PAGE = 500
MAX_FAULTS = 100


class EntryResponse(Schema):
    number: int | str = Field(description="Counts from 1, without a gap; a text was put in by somebody else.")
    created: str = Field(description="UTC.")
    by: str = Field(description="A user's name, token, local, or service for itself.")
    action: str = Field(examples=["threshold"])
    subject: str = Field(description="Of what: a model, or a result.")
    before: JsonValue
    after: JsonValue
    previous: str = Field(description="Digest of the entry before; zeros: there is none.")
    digest: str = Field(description="SHA-256 of all of this.")


class AuditResponse(Schema):
    entries: list[EntryResponse] = Field(description="The newest first.")
    next_before: int | None = Field(description="Give it as `before` for the next page; null: there is none.")


class VerifyResponse(Schema):
    is_whole: bool
    faults: list[str] = Field(description="What is wrong, in sentences.")
    last_number: int = Field(description="0: there is no entry yet.")
    last_digest: str | None = Field(description="Written down elsewhere, it proves later that the end is still there.")


@AUDIT.get("/api/audit", responses=error_responses(422))
async def audit(
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    before: Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="Only entries of lower numbers.")] = None,
) -> AuditResponse:
    """Changes of thresholds, models and feedback, the newest first."""
    rows = await asyncio.to_thread(page_before, service.database, limit + 1, before)
    following = next_before(rows[limit - 1]) if len(rows) > limit else None
    return AuditResponse(entries=[entry_response(row) for row in rows[:limit]], next_before=following)


@AUDIT.get("/api/audit/verify", responses=error_responses())
async def verify(service: ServiceDependency) -> VerifyResponse:
    """Whether an entry, or a record of feedback, was changed or is missing."""

    def verified() -> VerifyResponse:
        found = list(islice(all_faults(service.database), MAX_FAULTS))
        last = last_entry(service.database)
        return VerifyResponse(
            is_whole=not found, faults=found, last_number=last.number if last else 0,
            last_digest=last.digest if last else None,
        )  # fmt: skip

    return await asyncio.to_thread(verified)


@AUDIT.get(
    "/api/audit/export", response_class=Response,
    responses=error_responses() | {200: {"content": {"application/x-ndjson": {}}, "description": "An entry a line."}},
)  # fmt: skip
async def export(service: ServiceDependency) -> Response:
    """All entries as lines of JSON, the oldest first."""
    return json_lines((entry.as_json() for entry in entries(service.database)), "audit.jsonl")


def next_before(last: Entry) -> int:
    """Entries without a number come first, and all that have one after them."""
    return last.number if isinstance(last.number, int) else MAX_NUMBER


def entry_response(entry: Entry) -> EntryResponse:
    return EntryResponse(**entry.as_json())
