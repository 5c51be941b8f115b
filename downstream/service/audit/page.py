"""The audit log as a page that is printed and signed, or saved as PDF by the browser that shows it."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from downstream.service.audit.chain import Entry

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def audit_page(entries: Sequence[Entry], faults: Sequence[str], made: str) -> str:
    """Self-contained HTML; `faults` are what is wrong with the log, `made` is when this was written."""
    return TEMPLATES.get_template("audit.html").render(entries=entries, faults=faults, made=made)
