"""A new version beside the one in use: in the terminal, as JSON, and as one page that needs no network."""

import sys
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baselines.contract.metrics import Interval, number
from downstream.learning.golden import APART, Judged, Proof, VersionFigures, why_not_better
from downstream.learning.versions import PROOF
from downstream.report.page import environment
from downstream.report.rows import signed, signed_interval
from pretrain.data.decode import Unreadable, decode
from pretrain.data.images import Problem
from pretrain.drawing import data_url
from pretrain.files import write_json, write_whole

PAGE = "report.html"
SHOWN_PX, JPEG_QUALITY, MAX_SHOWN = 160, 80, 200


class Learned(NamedTuple):
    """A new version: its number and folder, the version in use beside which it was proved, the feedback that could not
    be used, and what it has learned, `{"good": n, "defective": n, "tells_defects": bool}`."""

    number: int
    folder: Path
    in_use: int
    proof: Proof
    problems: list[Problem]
    learned: dict

    @property
    def sentence(self) -> str:
        """What it has learned from."""
        words = f"{self.learned['good']} good and {self.learned['defective']} defective images"
        if not self.learned["defective"]:
            return words
        tells = "it can tell such defects" if self.learned["tells_defects"] else "it cannot tell such defects yet"
        return f"{words}; {tells}"

    @property
    def changed(self) -> list[Judged]:
        """The images that the two versions call differently, those that get worse first."""
        return sorted((each for each in self.proof.images if each.is_changed), key=lambda each: each.is_better)


def write_report(folder: Path, learned: Learned) -> None:
    """Write proof.json and report.html."""
    write_json(folder / PROOF, as_json(learned))
    page = (
        environment()
        .get_template("learning.html")
        .render(
            learned=learned,
            rows=rows_of(learned),
            difference=difference_of(learned.proof),
            apart=APART,
            shown=[(each, _thumbnail(each.image)) for each in learned.changed[:MAX_SHOWN]],
            verdict=verdict_of(learned),
        )
    )
    write_whole(folder / PAGE, page.encode("utf-8", "replace"))  # names of files need not be UTF-8


def as_json(learned: Learned) -> dict:
    """All of it, as plain JSON."""
    proof = learned.proof
    return {
        "version": learned.number,
        "in_use": learned.in_use,
        "learned": learned.learned,
        "apart": f"one image in {APART}, by its digest",
        "figures": {"in_use": proof.before._asdict(), "new": proof.after._asdict()},
        "auroc_difference": proof.auroc_difference._asdict() if proof.auroc_difference else None,
        "why_not_better": why_not_better(proof),
        "problems": [{"image": str(path), "reason": reason} for path, reason, _ in learned.problems],
        "images": [{**each._asdict(), "is_changed": each.is_changed} for each in proof.images],
    }


def rows_of(learned: Learned) -> list[tuple[str, str, str]]:
    """What is compared: its name, of the version in use, of the new one."""
    before, after = learned.proof.before, learned.proof.after

    def row(title: str, cell) -> tuple[str, str, str]:
        return title, cell(before), cell(after)

    def auroc(figures: VersionFigures) -> str:
        return f"{number(figures.auroc)}{_between(figures.auroc_interval)}"

    return [
        row("false alarms", lambda f: f"{f.false_alarms} of {f.good} good{_between(f.false_alarm_interval)}"),
        row("missed", lambda f: f"{f.missed} of {f.defective} defective{_between(f.missed_interval)}"),
        row("AUROC", auroc),
    ]


def difference_of(proof: Proof) -> str:
    """By how much the AUROC differs, in words; nothing where nothing can be said."""
    if proof.auroc_difference is None:
        return ""
    value, _, interval = proof.auroc_difference
    return f"AUROC {signed(value)}, 95 % interval {signed_interval(interval)}"


def verdict_of(learned: Learned) -> str:
    """Whether the rule for promotion would let it pass."""
    why_not = why_not_better(learned.proof)
    return f"not better: {why_not}" if why_not else "better"


def print_proof(learned: Learned) -> None:
    """The same in the terminal."""
    table = Table(title=f"judged on {_apart(learned.proof)} that no version learns from", title_justify="left")
    for title in ("", f"version {learned.in_use}, in use", f"version {learned.number}, new"):
        table.add_column(title)
    for row in rows_of(learned):
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if difference_of(learned.proof):
        print(difference_of(learned.proof))
    if learned.changed:
        console.print(_changes(learned))
    else:
        print(f"no verdict on any of {len(learned.proof.images)} confirmed images would change")


def _changes(learned: Learned) -> Table:
    table = Table(title="what would change, of all confirmed images", title_justify="left")
    for title in ("image", "is", f"version {learned.in_use}", f"version {learned.number}", "learned from"):
        table.add_column(title, overflow="fold" if title == "image" else "ellipsis", no_wrap=title != "image")
    for each in learned.changed:
        color = "green" if each.is_better else "red"
        table.add_row(
            escape(each.image),
            called(each.is_defective),
            f"{called(each.said_before)}, {ratio(each.score_before, each.threshold_before)}",
            f"[{color}]{called(each.said_after)}[/], {ratio(each.score_after, each.threshold_after)}",
            "no" if each.is_apart else "yes",
        )
    return table


def called(is_defective: bool) -> str:
    return "defective" if is_defective else "good"


def ratio(score: float, threshold: float) -> str:
    """A score beside its threshold."""
    return f"{score / threshold:.2f} of the threshold" if threshold > 0 else f"{score:.3g}"


def _apart(proof: Proof) -> str:
    count = sum(each.is_apart for each in proof.images)
    return f"{count} of {len(proof.images)} confirmed images"


def _between(interval: Interval | None) -> str:
    return f" [{number(interval.low)} to {number(interval.high)}]" if interval else ""


def _thumbnail(image: str) -> str | None:
    """A data URL; none where the image is not on this disk any more."""
    try:
        shown = Image.fromarray(decode(Path(image)).pixels)
    except Unreadable:
        return None
    shown.thumbnail((SHOWN_PX, SHOWN_PX))
    return data_url(shown, JPEG_QUALITY)
