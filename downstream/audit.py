"""The service's audit log: who changed threshold, model or feedback, when, from what to what.

    python downstream/audit.py verify                              # of runs/serve/results.sqlite
    python downstream/audit.py verify --earlier last-month.jsonl
    python downstream/audit.py export --out today.jsonl            # today.html is to be printed and signed

Each entry has the digest of the one before. `verify` ends with exit code 0 if the log is whole, 1 if an entry, or
feedback that an entry tells of, was changed or is missing, 2 after a mistake.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.service.audit.config import Export, Verify
    from pretrain.command import start_commands

    start_commands({"verify": ("downstream.audit:verify", Verify), "export": ("downstream.audit:export", Export)})

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from downstream.service.audit.chain import Entry, entry_from, faults, lost
from downstream.service.audit.config import DEFAULT_RESULTS, Export, Verify
from downstream.service.audit.log import all_faults, entries
from downstream.service.audit.page import audit_page
from downstream.service.database import DamagedRow, Database, is_damaged, now
from downstream.service.secret import secret_in
from pretrain.command import UserError
from pretrain.files import write_whole
from pretrain.reading import parse_json, read_regular

WHOLE, BROKEN = 0, 1
PAGE = ".html"


def verify(config: Verify) -> int:
    """Print what is wrong, and the last entry; the exit code says whether it is whole."""
    earlier = exported(config.earlier) if config.earlier else []
    with opened(config.results, config.results_password_file) as database:
        found = [*all_faults(database), *lost(earlier, entries(database))]
        last = None
        for last in entries(database):  # noqa: B007  the last one is asked for
            pass
    for fault in found:
        print(fault)
    if found:
        return BROKEN
    print("whole: no entry yet." if last is None else f"whole: {last.number} entries, the last of {last.created}.")
    if last is not None:
        print(f"Write down elsewhere, against a cut-off end: {last.number} {last.digest}")
    return WHOLE


def export(config: Export) -> None:
    with opened(config.results, config.results_password_file) as database:
        found = list(entries(database))
        faults_found = list(all_faults(database)) if config.out.suffix == PAGE else []
    if config.out.suffix == PAGE:
        text = audit_page(found, faults_found, now())
    else:
        text = "".join(json.dumps(entry.as_json(), ensure_ascii=False) + "\n" for entry in found)
    write_whole(config.out, text.encode())
    print(f"{len(found)} entries: {config.out}")


@contextmanager
def opened(results: str | None, password_file: Path | None) -> Iterator[Database]:
    """The database of a service, to be read: also one of an earlier heldout, which a service would bring up to date.
    Raises UserError where there is none."""
    location = results or os.environ.get("HELDOUT_RESULTS") or DEFAULT_RESULTS
    if "://" not in location and not Path(location).is_file():
        raise UserError(f"there is no database {location}: name that of the service by --results.")
    database = Database(location, password_file and secret_in(password_file), is_read_only=True)
    try:
        yield database
    except SQLAlchemyError as error:
        state = "is damaged" if is_damaged(error) else "does not answer"
        reason = error if isinstance(error, DamagedRow) else f"it {state}"
        raise UserError(f"{database} cannot be read: {reason}.") from None
    finally:
        database.close()


def exported(file: Path) -> list[Entry]:
    """Raises UserError for what is no export, or a changed one."""
    try:
        read = [entry_from(parse_json(line)) for line in read_regular(file).decode().splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is no export of an audit log ({error}): name a file that export wrote.") from None
    for fault in faults(read):
        raise UserError(f"{file}: {fault} Name an export that is whole.")
    return read
