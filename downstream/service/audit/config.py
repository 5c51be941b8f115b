"""Options of downstream/audit.py; imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_RESULTS = "runs/serve/results.sqlite"


@dataclass(frozen=True)
class Verify:
    """Find out whether an entry of the audit log, or feedback that it tells of, was changed or is missing.

    Attributes:
        results: Database of the service: a SQLite file, or postgresql://USER@HOST/NAME. Default is HELDOUT_RESULTS if
            that is set, else runs/serve/results.sqlite.
        results_password_file: File with the password for PostgreSQL.
        earlier: An earlier export: its entries must all be there still. Without one, a cut-off end is not noticed.
    """

    results: str | None = None
    results_password_file: Path | None = None
    earlier: Path | None = None


@dataclass(frozen=True)
class Export:
    """Write the audit log as lines of JSON, or as a page to be printed and signed.

    Attributes:
        results: Database of the service, as for verify.
        results_password_file: File with the password for PostgreSQL.
        out: The file; one that ends in .html is the page, which no later verify reads.
    """

    results: str | None = None
    results_password_file: Path | None = None
    out: Path = Path("audit.jsonl")
