"""Learning from what was said: begun over HTTP, looked at while it runs, and its proof image by image."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from downstream.learning.background import Status
from downstream.learning.candidate import STEPS, check_learns
from downstream.learning.versions import FOLDER, PROOF, changing, version_in_use
from downstream.service.access import needs
from downstream.service.database import ResultFilter
from downstream.service.feedback.records import FeedbackRecords
from downstream.service.openapi import ModelQuery, ServiceDependency, error_responses
from downstream.service.routes_versions import named
from downstream.service.schemas import Schema
from downstream.service.service import Service
from pretrain.command import UserError
from pretrain.reading import read_json

LEARNING = APIRouter()
# More would be no list that anybody reads; `total_changed` and `total_left_out` count them all.
MAX_CHANGES = 200
KEPT = re.compile("[0-9a-f]{64}")


class LearningResponse(Schema):
    state: Literal["never", "runs", "done", "failed"] = Field(description="Of what learns now, or learned last.")
    model: str
    by: str
    began: str = Field(description="UTC.")
    ended: str
    step: str = Field(description="What it does just now.", examples=list(STEPS))
    number: int = Field(description="Which of the steps that is, from 1; 0: none.")
    steps: int
    version: int | None = Field(description="What came of it, which is not in use before it is promoted.")
    reason: str = Field(description="Why nothing came of it.")


class FiguresResponse(Schema):
    """How a version judges the images that none learns from; intervals are of 95 %, and null where there are none."""

    good: int
    defective: int
    false_alarms: int
    missed: int
    false_alarm_interval: tuple[float, float] | None
    missed_interval: tuple[float, float] | None
    auroc: float | None
    auroc_interval: tuple[float, float] | None


class ChangeResponse(Schema):
    """A confirmed image that the two versions call differently."""

    name: str
    image: str | None = Field(description="Path of the image, at most 512 px; null where it is not kept any more.")
    is_defective: bool = Field(description="What people say of it.")
    said_before: bool
    said_after: bool
    is_learned_from: bool = Field(description="If false, it is one of those that no version learns from.")


class ProofResponse(Schema):
    model: str
    version: int
    in_use: int = Field(description="The version that it was compared with, in use when it was made.")
    is_current: bool = Field(description="Whether that one is still in use.")
    learned: dict[str, int | bool]
    before: FiguresResponse
    after: FiguresResponse
    auroc_difference: float | None = Field(description="New minus before; null: nothing can be said.")
    auroc_difference_interval: tuple[float, float] | None
    why_not_better: str = Field(description="Why the rule for promotion would not let it pass; empty: it would.")
    confirmed: int = Field(description="Number of confirmed images, learned from or not.")
    changes: list[ChangeResponse] = Field(description=f"Those that get worse first, at most {MAX_CHANGES}.")
    total_changed: int
    left_out: list[str] = Field(description=f"Confirmed images that could not be used, and why, at most {MAX_CHANGES}.")
    total_left_out: int


@LEARNING.post(
    "/api/learn", status_code=202, dependencies=[needs("configure")],
    responses=error_responses(404, 408, 409, 413, 422, 429),
)  # fmt: skip
async def learn(service: ServiceDependency, request: Request, model: ModelQuery = None) -> LearningResponse:
    """Begin to make a version of a model of all that was said of its verdicts; GET /api/learn says how it goes. One at
    a time; images are judged meanwhile, and the version in use stays in use."""
    return await asyncio.to_thread(begun, service, model, request.state.user.name)


@LEARNING.get("/api/learn", dependencies=[needs("read")], responses=error_responses())
async def learning(service: ServiceDependency) -> LearningResponse:
    """How learning goes, or went last, of whichever model."""
    return learning_response(await asyncio.to_thread(service.learning.status))


@LEARNING.get("/api/proof", dependencies=[needs("read")], responses=error_responses(404, 409, 422))
async def proof(
    service: ServiceDependency,
    version: Annotated[int, Query(ge=1, le=2**31 - 1, description="One of GET /api/versions that learned.")],
    model: ModelQuery = None,
) -> ProofResponse:
    """How a version was judged beside the one that was in use when it was made."""
    return await asyncio.to_thread(proof_response, service, model, version)


def begun(service: Service, model: str | None, by: str) -> LearningResponse:
    name, path = named(service, model)
    check_learns(service.current(name).loaded.inspector)
    with changing(path):  # where nothing can be written, that is said now
        in_use = version_in_use(path)
    records = list(FeedbackRecords(service.database).exported(Path(service.settings.kept_images), name))
    if not records:
        raise UserError(f"nobody has said anything of what {name} judged: agree, or correct it, first.")
    told: list[str] = []

    def announce() -> None:
        said = f"begun, with version {in_use} in use"
        service.note_change(by, "learning", name, None, said)
        told.append(said)

    try:  # the entry first, as of a version that comes into use: none learns untold
        return learning_response(service.learning.start(path, name, records, by, announce))
    except Exception:
        for said in told:
            service.note_change("service", "learning", name, said, "not begun")
        raise


def learning_response(status: Status) -> LearningResponse:
    number = STEPS.index(status.step) + 1 if status.step in STEPS else 0
    return LearningResponse(**status._asdict(), number=number, steps=len(STEPS))


def proof_response(service: Service, model: str | None, version: int) -> ProofResponse:
    name, path = named(service, model)
    file = path / FOLDER / str(version) / PROOF
    if not file.is_file():
        raise HTTPException(404, f"of version {version} of {name} there is no proof: it was fitted, or is none.")
    try:
        said = read_json(file)
        changed = [each for each in said["images"] if each["is_changed"]]
        changed.sort(key=lambda each: each["said_after"] == each["is_defective"])
        difference, problems = said["auroc_difference"] or {}, said["problems"]
        return ProofResponse(
            model=name, version=version, in_use=said["in_use"], is_current=version_in_use(path) == said["in_use"],
            learned=said["learned"], before=said["figures"]["in_use"], after=said["figures"]["new"],
            auroc_difference=difference.get("value"), auroc_difference_interval=difference.get("interval"),
            why_not_better=said["why_not_better"], confirmed=len(said["images"]),
            changes=[change_response(service, each) for each in changed[:MAX_CHANGES]], total_changed=len(changed),
            left_out=[f"{_name(service, each['image'])}: {each['reason']}" for each in problems[:MAX_CHANGES]],
            total_left_out=len(problems),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        raise HTTPException(409, f"the proof of version {version} of {name} is damaged: learn again.") from None


def change_response(service: Service, image: Mapping) -> ChangeResponse:
    digest = _digest(service, image["image"])
    is_there = digest is not None and service.database.image(digest) is not None
    return ChangeResponse(
        name=_name(service, image["image"]), image=f"/api/images/kept/{digest}" if is_there else None,
        is_defective=image["is_defective"], said_before=image["said_before"], said_after=image["said_after"],
        is_learned_from=not image["is_apart"],
    )  # fmt: skip


def _digest(service: Service, image: str) -> str | None:
    """Of an image that this service kept; none where the proof is of another file, as one of the command line's."""
    path = Path(image)
    is_kept = path.parent == Path(service.settings.kept_images).absolute() and KEPT.fullmatch(path.stem)
    return path.stem if is_kept else None


def _name(service: Service, image: str) -> str:
    """As the client called it."""
    digest = _digest(service, image)
    found = service.database.results(ResultFilter(digest=digest), 1) if digest else []
    return next((result.name for result in found if result.name), Path(image).name)
