"""What trackers get of a study: one run for all of it, and a part for each row, with its figures as cells finish."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from downstream.report.gallery import gallery_sheet
from downstream.report.rows import mean_figure
from downstream.study.cell import CellResult, RowKey
from downstream.study.figures import cell_figures
from downstream.study.record import Results
from pretrain.drawing import save_image
from pretrain.training.trackers import FAILED, FINISHED, STOPPED, Trackers

# What trackers get of each cell, and of each row.
TRACKED = ("auroc", "balanced_accuracy", "pixel_auroc", "pixel_average_precision", "pixel_aupro")
OPTIONS = ("data", "protocol", "size_px", "false_alarm_rate", "quick", "allow_seen", "commit", "command")
GALLERY = "gallery.png"


class Followers:
    """A context around a study: as it is left, trackers hear how it ended. `study` is its study.json."""

    def __init__(self, names: Iterable[str], out: Path, study: Mapping) -> None:
        self._names, self._out = tuple(names), out
        self._trackers = Trackers(self._names, out, options_of(study) if self._names else {})
        self._rows: set[str] = set()
        self._cells: set[tuple[str, str, int]] = set()
        self._status, self._of_rows = STOPPED, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            self._status, self._of_rows = STOPPED, {}
        self._trackers.end(self._status, self._of_rows)

    def cell(self, result: CellResult) -> None:
        """A finished cell's figures, in its row; steps are seeds. One that was told is not told again."""
        cell, row = result.cell, RowKey(**result.cell["row"])
        if not self._names or (told := (row.name, cell["category"], cell["seed"])) in self._cells:
            return
        if row.name not in self._rows:
            self._rows.add(row.name)
            self._trackers.part(row.name, {**cell["row"], **cell["arguments"]})
        self._cells.add(told)
        figures = cell_figures(result)
        self._trackers.figures(cell["seed"], {f"{told[1]}/{name}": figures[name] for name in TRACKED}, row.name)

    def report(self, summary: dict, results: Results, is_whole: bool = True) -> None:
        """The means of all rows, what an earlier process computed, and the report with its images. `is_whole` says
        whether everything beside the cells could be computed."""
        if not self._names:
            return
        for by_category in results.values():
            for result in (result for by_seed in by_category.values() for result in by_seed.values()):
                self.cell(result)
        for row in summary["rows"]:
            self._trackers.figures(0, {name: mean_figure(row, name) for name in TRACKED}, row["name"])
        save_image(gallery_sheet(summary, results), self._out / GALLERY)
        self._trackers.results(["report.html", "report.json", GALLERY])
        failed = {RowKey(**failure["row"]).name for failure in summary["failures"]}
        if failed or not is_whole:
            self._status = FAILED
        elif summary["cells"]["finished"] == summary["cells"]["planned"]:
            self._status = FINISHED
        if self._status != STOPPED:
            self._of_rows = {row["name"]: FAILED if row["name"] in failed else FINISHED for row in summary["rows"]}


def options_of(study: Mapping) -> dict[str, object]:
    """What a study was asked for and what that was resolved to, a line of text each."""
    options: dict[str, object] = {name: study[name] for name in OPTIONS}
    for name in ("seeds", "shots"):
        options[name] = ",".join(map(str, study[name]))
    options["test"] = ",".join(fold["test"] for fold in study["folds"])
    options["train"] = "; ".join(dict.fromkeys(",".join(fold["train"]) for fold in study["folds"]))
    options["methods"] = ",".join(method["name"] for method in study["methods"])
    options["encoders"] = ",".join(encoder["file"] for encoder in study["encoders"]) or "none"
    return options
