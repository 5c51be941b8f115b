"""Entries that prove each other: each has the digest of the one before, so none can be changed or taken out unseen.

Whoever can write the database could write the whole chain anew, or cut its end off. Against that, an earlier export,
or the number and digest of one entry kept somewhere else, is what today's chain is held against.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from pretrain.reading import parse_json

BEGINNING = "0" * 64


class Entry(NamedTuple):
    """Who changed what, when, from what to what: `before` and `after` are JSON, null where there was nothing. A number
    that is a text was put in by somebody else."""

    number: int | str
    created: str
    by: str
    action: str
    subject: str
    before: str
    after: str
    previous: str
    digest: str

    def as_json(self) -> dict:
        return {**self._asdict(), "before": _value(self.before), "after": _value(self.after)}


def entry_from(fields: dict) -> Entry:
    """The other way round. Raises KeyError or TypeError where something is missing or too much."""
    return Entry(**{**fields, "before": as_text(fields["before"]), "after": as_text(fields["after"])})


def readable(row: Mapping) -> dict:
    """A row of the database. SQLite lets anybody put bytes in place of a text: they are not what was written, which the
    digest says, and are shown as what they are."""
    return {name: one if one is None or isinstance(one, str | int) else repr(one) for name, one in row.items()}


def as_text(value: object) -> str:
    """JSON that is the same for the same value, wherever it is written. Raises ValueError for what JSON has not."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _value(text: str) -> object:
    """What `as_text` made a text of. One that it did not make was put in by somebody else, which its digest says: it is
    shown as it is, and is nothing that could not be written as JSON again."""
    try:
        value = parse_json(text, object)
        is_own = as_text(value) == text
    except (ValueError, TypeError, RecursionError):
        is_own = False
    return value if is_own else text


def next_entry(
    last: Entry | None, created: str, by: str, action: str, subject: str, before: object, after: object
) -> Entry:
    """The entry that follows `last`, or the first one."""
    number, previous = (last.number + 1, last.digest) if last else (1, BEGINNING)
    entry = Entry(number, created, by, action, subject, as_text(before), as_text(after), previous, "")
    return entry._replace(digest=digest_of(entry))


def digest_of(entry: Entry) -> str:
    """SHA-256 of all but itself."""
    return sha256(as_text(entry[:-1]).encode()).hexdigest()


def faults(entries: Iterable[Entry]) -> Iterator[str]:
    """What is wrong with a chain, in sentences; nothing, if it is whole."""
    number, previous = 0, BEGINNING
    for entry in entries:
        if isinstance(entry.number, str):
            yield f"entry {entry.number!r} was put in or changed: its number is none."
            continue
        if entry.number != number + 1:
            first, last = number + 1, entry.number - 1
            yield f"entries {first} to {last} are missing." if last > first else f"entry {first} is missing."
        elif entry.previous != previous:
            yield f"entry {entry.number} does not follow entry {number} as that is now: one of them was replaced."
        if digest_of(entry) != entry.digest:
            yield f"entry {entry.number} was changed: it is not what its digest says."
        number, previous = entry.number, entry.digest


def lost(earlier: Iterable[Entry], entries: Iterable[Entry]) -> Iterator[str]:
    """What an earlier export has that is not there any more, or is another: also at the end, which a chain alone
    cannot know of."""
    digests = {entry.number: entry.digest for entry in entries}
    for entry in earlier:
        if entry.number not in digests:
            yield f"entry {entry.number} of the earlier export is missing."
        elif digests[entry.number] != entry.digest:
            yield f"entry {entry.number} is another one than in the earlier export."
