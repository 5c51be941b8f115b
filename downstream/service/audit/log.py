"""The log of changes in the service's database: one chain, whichever worker adds to it."""

from collections.abc import Iterator, Mapping
from hashlib import sha256

from sqlalchemy import Connection, and_, insert, select

from downstream.service.audit.chain import Entry, as_text, faults, next_entry
from downstream.service.database import Database, now
from downstream.service.monitoring import LOG
from downstream.service.tables import AUDIT, FEEDBACK
from pretrain.reading import parse_json

ROWS_PER_PAGE = 1000
SAID = "feedback"


def add_entry(
    connection: Connection, created: str, by: str, action: str, subject: str, before: object, after: object
) -> Entry:
    """Add an entry in a transaction that runs alone (migrating.py): what it tells of commits with it, or neither."""
    last = connection.execute(select(AUDIT).order_by(AUDIT.c.number.desc()).limit(1)).first()
    entry = next_entry(Entry(*last) if last else None, created, by, action, subject, before, after)
    connection.execute(insert(AUDIT).values(**entry._asdict()))
    # Elsewhere than in the database: who cuts the end of the chain off does not reach this.
    LOG.info("audit", extra={"metadata": {"number": entry.number, "action": action, "digest": entry.digest}})
    return entry


def add_change(connection: Connection, by: str, action: str, subject: str, before: object, after: object) -> None:
    """The same of what changes now, unless nothing does."""
    if before != after:
        add_entry(connection, now(), by, action, subject, before, after)


def feedback_digest(row: Mapping) -> str:
    """Of a row of `feedback`: its entry has it, so that a record that was changed is found."""
    return sha256(as_text([row[column.name] for column in FEEDBACK.columns]).encode()).hexdigest()


def entries(database: Database, after: int = 0) -> Iterator[Entry]:
    """Those with higher numbers, the lowest first; memory does not grow with them."""
    while True:
        statement = select(AUDIT).where(AUDIT.c.number > after).order_by(AUDIT.c.number).limit(ROWS_PER_PAGE)
        page = [Entry(**row) for row in database.rows(statement)]
        if not page:
            return
        yield from page
        after = page[-1].number


def page_before(database: Database, limit: int, before: int | None) -> list[Entry]:
    """The newest first, with numbers below `before`."""
    wanted = and_(True, *([AUDIT.c.number < before] if before is not None else []))
    statement = select(AUDIT).where(wanted).order_by(AUDIT.c.number.desc()).limit(limit)
    return [Entry(**row) for row in database.rows(statement)]


def all_faults(database: Database) -> Iterator[str]:
    """What is wrong with the chain, or with records of feedback that it tells of; also while the service is in use."""
    yield from faults(entries(database))
    # Read before the records: what later entries tell of may have come after those were read.
    last = next((entry.number for entry in page_before(database, 1, None)), 0)
    said = {row["id"]: row for row in database.rows(select(FEEDBACK))}
    for entry in entries(database):
        if entry.action != SAID:
            continue
        try:
            after = parse_json(entry.after)
            feedback_id, digest = int(after["id"]), after["digest"]
        except (ValueError, TypeError, KeyError, OverflowError):
            yield f"entry {entry.number} was changed: it names no feedback."
            continue
        row = said.pop(feedback_id, None)
        if row is None and entry.number <= last:
            yield f"feedback {feedback_id}, of entry {entry.number}, is missing."
        elif row is not None and feedback_digest(row) != digest:
            yield f"feedback {feedback_id} was changed: entry {entry.number} has another digest of it."
    for feedback_id in said:
        yield f"feedback {feedback_id} was put in beside the service: no entry tells of it."
