"""The log of changes in the service's database: one chain, whichever worker adds to it."""

from collections.abc import Iterator, Mapping
from hashlib import sha256

from sqlalchemy import Connection, and_, insert, select

from downstream.service.audit.chain import Entry, as_text, faults, next_entry, readable
from downstream.service.database import Database, now
from downstream.service.monitoring import AUDIT_LINE, LOG
from downstream.service.tables import AUDIT, FEEDBACK
from pretrain.reading import parse_json

ROWS_PER_PAGE = 1000
MAX_NUMBER = 2**63 - 1
SAID = "feedback"


def add_entry(
    connection: Connection, created: str, by: str, action: str, subject: str, before: object, after: object
) -> Entry:
    """Add an entry in a transaction that runs alone (migrating.py): what it tells of commits with it, or neither."""
    # Whatever was put in by somebody else, the service goes on; a text sorts after all numbers.
    numbered = select(AUDIT).where(AUDIT.c.number <= MAX_NUMBER).order_by(AUDIT.c.number.desc())
    last = connection.execute(numbered.limit(1)).mappings().first()
    entry = next_entry(Entry(**readable(last)) if last else None, created, by, action, subject, before, after)
    connection.execute(insert(AUDIT).values(**entry._asdict()))
    # Elsewhere than in the database: who cuts the end of the chain off does not reach this.
    LOG.info(AUDIT_LINE, extra={"metadata": {"number": entry.number, "action": action, "digest": entry.digest}})
    return entry


def add_change(connection: Connection, by: str, action: str, subject: str, before: object, after: object) -> None:
    """The same of what changes now, unless nothing does."""
    if before != after:
        add_entry(connection, now(), by, action, subject, before, after)


def feedback_digest(row: Mapping) -> str:
    """Of a row of `feedback`: its entry has it, so that a record that was changed is found."""
    fields = readable(row)
    return sha256(as_text([fields[column.name] for column in FEEDBACK.columns]).encode()).hexdigest()


def entries(database: Database, after: int = 0) -> Iterator[Entry]:
    """Those with higher numbers, the lowest first; memory does not grow with them."""
    while True:
        numbered = select(AUDIT).where(AUDIT.c.number > after, AUDIT.c.number <= MAX_NUMBER)
        page = database.rows(numbered.order_by(AUDIT.c.number).limit(ROWS_PER_PAGE))
        if not page:
            break
        yield from (Entry(**readable(row)) for row in page)
        after = page[-1]["number"]
    # By what is no number nobody could turn pages: a damaged text is not read as it sorts.
    yield from (Entry(**readable(row)) for row in database.rows(select(AUDIT).where(AUDIT.c.number > MAX_NUMBER)))


def page_before(database: Database, limit: int, before: int | None) -> list[Entry]:
    """The newest first, with numbers below `before`."""
    wanted = and_(True, *([AUDIT.c.number < before] if before is not None else []))
    statement = select(AUDIT).where(wanted).order_by(AUDIT.c.number.desc()).limit(limit)
    return [Entry(**readable(row)) for row in database.rows(statement)]


def last_entry(database: Database) -> Entry | None:
    """Of those with a number."""
    newest = next(iter(page_before(database, 1, MAX_NUMBER)), None)
    return newest if newest and isinstance(newest.number, int) else None


def all_faults(database: Database) -> Iterator[str]:
    """What is wrong with the chain, or with records of feedback that it tells of; also while the service is in use."""
    yield from faults(entries(database))
    # Read before the records: what later entries tell of may have come after those were read.
    newest = last_entry(database)
    last = newest.number if newest else 0
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
        if row is None and (isinstance(entry.number, str) or entry.number <= last):
            yield f"feedback {feedback_id}, of entry {entry.number}, is missing."
        elif row is not None and feedback_digest(row) != digest:
            yield f"feedback {feedback_id} was changed: entry {entry.number} has another digest of it."
    for feedback_id in said:
        yield f"feedback {feedback_id} was put in beside the service: no entry tells of it."
