"""The versions of a model that learned: which there are, how they were proved, and which is in use."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import Field

from downstream.learning.versions import (
    Change,
    Version,
    changing,
    history_of,
    promote,
    roll_back,
    version_in_use,
    versions_of,
)
from downstream.service.access import needs
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.schemas import Schema
from downstream.service.service import Service
from pretrain.command import UserError

VERSIONS = APIRouter()
CHANGE_ERRORS = (404, 408, 409, 413, 422, 429)


class VersionResponse(Schema):
    number: int
    is_in_use: bool
    made: str = Field(description="UTC.")
    learned: dict[str, int] | None = Field(description="Images of feedback that it learned from; null: it was fitted.")


class ChangeResponse(Schema):
    version: int
    at: str = Field(description="UTC; empty: from the first.")
    by: str
    how: str = Field(description="fitted, promoted or rolled back.")


class VersionsResponse(Schema):
    model: str
    versions: list[VersionResponse] = Field(description="By number.")
    history: list[ChangeResponse] = Field(description="Which came into use, the first one first.")


class PromoteRequest(Schema):
    version: int = Field(strict=True, ge=1, le=2**31 - 1, description="One of GET /api/versions.")


@VERSIONS.get("/api/versions", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def versions(service: ServiceDependency, model: ModelQuery = None) -> VersionsResponse:
    """The versions of a model: the fitted one, and those that `detect.py learn` made of feedback."""
    return await asyncio.to_thread(lambda: versions_response(*named(service, model)))


@VERSIONS.post("/api/promote", dependencies=[needs("configure")], responses=error_responses(*CHANGE_ERRORS))
async def promote_version(
    wanted: PromoteRequest, service: ServiceDependency, request: Request, model: ModelQuery = None
) -> VersionsResponse:
    """Put another version into use, in every worker. Images that wait are judged by the one that they came for."""
    return await asyncio.to_thread(changed, service, model, request.state.user.name, wanted.version)


@VERSIONS.post("/api/roll_back", dependencies=[needs("configure")], responses=error_responses(*CHANGE_ERRORS))
async def roll_back_version(service: ServiceDependency, request: Request, model: ModelQuery = None) -> VersionsResponse:
    """Put the version into use again that was before."""
    return await asyncio.to_thread(changed, service, model, request.state.user.name, None)


def named(service: Service, model: str | None) -> tuple[str, Path]:
    """A model's name and folder. Raises NoSuchModel, and UserError for an exported one."""
    name = model or service.current().loaded.name
    path = service.models.path_of(name)
    if path.is_file():
        raise UserError(f"{name} is exported and has no versions: promote one of the model's folder, and export anew.")
    return name, path


def changed(service: Service, model: str | None, by: str, number: int | None) -> VersionsResponse:
    """Put a version into use, or without a number the one that was before. Raises UserError where that cannot be."""
    name, path = named(service, model)
    told: list[tuple[int, int]] = []

    def announce(before: int, after: int) -> None:
        service.note_change(by, "version in use", name, before, after)
        told.append((before, after))

    # The entry first: a version lies in files, which no transaction exchanges, and none comes into use untold. What a
    # kill between the two leaves is an entry that no new `model version` follows.
    try:
        if number is None:
            roll_back(path, None, by, announce)
        else:
            promote(path, number, by, announce=announce)
    except Exception:
        for before, after in told:
            with changing(path):  # beside which no other one comes into use: it may be there all the same
                if version_in_use(path) == before:
                    service.note_change("service", "version in use", name, after, before)
        raise
    service.current(name)  # now, and not when the next image waits for it
    return versions_response(name, path)


def versions_response(name: str, path: Path) -> VersionsResponse:
    return VersionsResponse(
        model=name,
        versions=[version_response(version) for version in versions_of(path)],
        history=[change_response(change) for change in history_of(path)],
    )


def version_response(version: Version) -> VersionResponse:
    return VersionResponse(
        number=version.number, is_in_use=version.is_in_use, made=version.made, learned=version.learned
    )


def change_response(change: Change) -> ChangeResponse:
    return ChangeResponse(**change._asdict())
