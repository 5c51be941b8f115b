"""All products of a service side by side: what came today and before, how much of it is defective, what was changed."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Integer, cast, func, select

from downstream.service.audit.log import SAID
from downstream.service.database import Database, ResultFilter, as_moment
from downstream.service.tables import AUDIT, RESULTS

DAYS = 14


class Day(NamedTuple):
    """24 hours from `begins`, UTC."""

    begins: str
    images: int
    defective: int


class Change(NamedTuple):
    """The last entry of the audit log about a model; who made it is for those who may read that log."""

    at: str
    action: str


class Product(NamedTuple):
    """A model; `days` are DAYS, the last of them today."""

    model: str
    days: list[Day]
    last_image: str | None
    last_change: Change | None


def products_of(database: Database, models: Sequence[str], today: datetime) -> list[Product]:
    """`today` is when it began, UTC. Raises OverflowError where there are no DAYS before it."""
    days: dict[str, list[Day]] = {model: [] for model in models}
    for back in range(DAYS - 1, -1, -1):
        begins, ends = (as_moment(today - timedelta(days=count)) for count in (back, back - 1))
        counts = _counts(database, begins, ends)
        for model in models:
            days[model].append(Day(begins, *counts.get(model, (0, 0))))
    return [Product(model, days[model], _last_image(database, model), _last_change(database, model))
            for model in models]  # fmt: skip


def _counts(database: Database, begins: str, ends: str) -> dict[str, tuple[int, int]]:
    """Images and defective ones by model, of a time; what came later than today's end is none of it."""
    defective = func.sum(cast(RESULTS.c.is_defective, Integer))
    columns = (RESULTS.c.model, func.count().label("images"), defective.label("defective"))
    wanted = ResultFilter(since=begins, until=ends).conditions()
    rows = database.rows(select(*columns).where(*wanted).group_by(RESULTS.c.model))
    return {row["model"]: (row["images"], row["defective"]) for row in rows}


def _last_image(database: Database, model: str) -> str | None:
    wanted = select(RESULTS.c.created).where(RESULTS.c.model == model).order_by(RESULTS.c.id.desc()).limit(1)
    return next((row["created"] for row in database.rows(wanted)), None)


def _last_change(database: Database, model: str) -> Change | None:
    wanted = select(AUDIT.c.created, AUDIT.c.action).where(AUDIT.c.subject == model, AUDIT.c.action != SAID)
    rows = database.rows(wanted.order_by(AUDIT.c.number.desc()).limit(1))
    return next((Change(row["created"], row["action"]) for row in rows), None)
