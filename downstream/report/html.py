"""Pieces of HTML and of words that all parts of the report share."""

from collections.abc import Iterable
from html import escape

from baselines.contract.metrics import number


def table(names: Iterable[str], lines: Iterable[str]) -> str:
    """A table that scrolls by itself where the page is narrow; `names` are its headings, as HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(lines)
    return (
        f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def line(name: str, cells: Iterable[str], is_control: bool = False, more: str = "") -> str:
    """A line of a table: its name and what is said below it, which are escaped, and its cells, which are HTML."""
    style = ' class="control"' if is_control else ""
    below = f"<br><small>{escape(more)}</small>" if more else ""
    return f'<tr{style}><th scope="row">{escape(name)}{below}</th>{"".join(cells)}</tr>'


def words(text: str, hint: str = "") -> str:
    """A cell of text, which is escaped."""
    shown = f' title="{escape(hint)}"' if hint else ""
    return f'<td class="words"{shown}>{escape(text)}</td>'


def figure(value: float | None, is_best: bool = False, more: str = "") -> str:
    """A cell of a number, marked where it is the highest; `more` is HTML."""
    style = ' class="best"' if is_best else ""
    return f"<td><span{style}>{number(value)}</span>{more}</td>"


def value_of(row: dict, name: str) -> float | None:
    """The mean of a figure of a row."""
    return row["figures"].get(name, {"mean": None})["mean"]


def auroc_in(row: dict, category: str) -> float | None:
    """A row's image AUROC on one category."""
    found = row["categories"].get(category)
    return found["figures"]["auroc"]["mean"] if found else None


def which(row: dict) -> str:
    """What tells rows of one method apart: 'SimCLR, 4 normals'."""
    return ", ".join(part for part in (row["encoder"], row["saw"] if row["shots"] else "") if part)


def full_name(row: dict) -> str:
    return ", ".join(part for part in (row["title"], which(row)) if part)
