"""Who else follows a training or a study: TensorBoard, MLflow. They are told what metrics.jsonl is told, and get the
pictures and the result. A study has parts, its rows, each with figures of its own.

A training never waits for a tracker and never ends for one: each is told in a thread of its own, and one that fails, as
with a server that is away, is told nothing more.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from pretrain.command import UserError, installed_by
from pretrain.data.images import check_names
from pretrain.files import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# What is still to be told once the training is over, for as long; then the command ends without.
SECONDS_TO_END = 60.0
# What trackers keep in a run's folder.
TENSORBOARD_FOLDER, MLFLOW_FILE = "tensorboard", "mlflow-run"
EXPERIMENT, MLFLOW_PARENT = "heldout", "mlflow.parentRunId"
# Unless the user says otherwise: MLflow waits two minutes, seven times over, and tells its makers what it is used for.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_DISABLE_TELEMETRY": "true",
}  # fmt: skip
# User and password of an address, which messages about servers repeat.
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
# In the names of its metrics, where categories stand as their folders are called.
REFUSED = re.compile(r"[^/\w.\- ]")
# How a run ended, in MLflow's words: one that was stopped can be resumed, one with a failed part is not whole.
FINISHED, FAILED, STOPPED = "FINISHED", "FAILED", "KILLED"
Options = Mapping[str, object]


class Tracker(Protocol):
    """Made in its thread when there is something to tell; `first_step` is where a resumed training goes on. `part` is
    the row of a study that something is of, none for all of it."""

    def part(self, part: str, options: Options) -> None: ...

    def figures(self, step: int, figures: Mapping[str, float], part: str = "") -> None: ...

    def picture(self, step: int, name: Path, folder: Path) -> None: ...

    def result(self, name: Path, folder: Path) -> None: ...

    def end(self, status: str, of_parts: Mapping[str, str]) -> None: ...


class TensorBoard:
    """Event files in the run's own folder, a folder below it for each part: `tensorboard --logdir runs` shows all runs
    beside one another, and the parts of a study as one run each."""

    def __init__(self, folder: Path, options: Options, first_step: int) -> None:
        self._folder, self._first_step = folder / TENSORBOARD_FOLDER, first_step
        self._writers: dict[str, SummaryWriter] = {}
        self.part("", options)

    def part(self, part: str, options: Options) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process wrote of steps that are taken again is hidden.
        writer = SummaryWriter(str(self._folder / part), purge_step=self._first_step)
        table = "\n".join(["| option | value |", "|---|---|", *(f"| {name} | {options[name]} |" for name in options)])
        writer.add_text("options", table, self._first_step)
        self._writers[part] = writer

    def figures(self, step: int, figures: Mapping[str, float], part: str = "") -> None:
        for name, value in figures.items():
            self._writers[part].add_scalar(name, value, step)

    def picture(self, step: int, name: Path, folder: Path) -> None:
        with Image.open(folder / name) as image:
            title = name.with_suffix("").as_posix()
            self._writers[""].add_image(title, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def result(self, name: Path, folder: Path) -> None:
        """It has no place for files; they lie beside its own."""

    def end(self, status: str, of_parts: Mapping[str, str]) -> None:
        for writer in self._writers.values():
            writer.close()


class MLflow:
    """A run of the experiment `heldout`, or of $MLFLOW_EXPERIMENT_NAME, where $MLFLOW_TRACKING_URI says; parts are its
    child runs."""

    def __init__(self, folder: Path, options: Options, first_step: int) -> None:
        for name, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client, id_file = MlflowClient(), folder / MLFLOW_FILE
        if id_file.is_file():  # a resumed training goes on in its run
            self._run = id_file.read_text().strip()
            self._experiment = self._client.get_run(self._run).info.experiment_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            known = self._client.get_experiment_by_name(name)
            self._experiment = known.experiment_id if known else self._client.create_experiment(name)
            self._run = self._client.create_run(self._experiment, run_name=folder.resolve().name).info.run_id
            write_whole(id_file, self._run.encode())
        self._parts = {"": self._run}
        self._log_options(self._run, options)

    def part(self, part: str, options: Options) -> None:
        parts = self._client.search_runs([self._experiment], f"tags.`{MLFLOW_PARENT}` = '{self._run}'")
        known = [run for run in parts if run.info.run_name == part]  # a name in a filter might end its quotes
        if known:
            self._parts[part] = known[0].info.run_id
            self._client.update_run(self._parts[part], status="RUNNING")
        else:
            created = self._client.create_run(self._experiment, tags={MLFLOW_PARENT: self._run}, run_name=part)
            self._parts[part] = created.info.run_id
        self._log_options(self._parts[part], options)

    def figures(self, step: int, figures: Mapping[str, float], part: str = "") -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now_ms = get_current_time_millis()
        metrics = [Metric(REFUSED.sub("_", name), value, now_ms, step) for name, value in figures.items()]
        self._client.log_batch(self._parts[part], metrics)

    def picture(self, step: int, name: Path, folder: Path) -> None:
        self.result(name, folder)

    def result(self, name: Path, folder: Path) -> None:
        within = None if name.parent == Path() else name.parent.as_posix()
        self._client.log_artifact(self._run, str(folder / name), within)

    def end(self, status: str, of_parts: Mapping[str, str]) -> None:
        for part, run in self._parts.items():
            self._client.set_terminated(run, of_parts.get(part, status))

    def _log_options(self, run: str, options: Options) -> None:
        for option, value in options.items():  # the same again changes nothing
            self._client.log_param(run, option, value)


TRACKERS: dict[str, tuple[type, str]] = {"tensorboard": (TensorBoard, "tensorboard"), "mlflow": (MLflow, "mlflow")}


def check_trackers(names: Iterable[str]) -> None:
    """Raise UserError for one that does not exist or is not installed, before anything is trained."""
    check_names(names, TRACKERS, "tracker")
    for name in names:
        if find_spec(TRACKERS[name][1]) is None:
            raise UserError(f"--track {name} needs a package that is not here: {installed_by(name)}.")


class Trackers:
    """All that were asked for; `folder` is the run's."""

    def __init__(self, names: Iterable[str], folder: Path, options: Mapping[str, object]) -> None:
        self._folder, self._options, self.first_step = folder, options, 0
        self._threads = [_Thread(name, self._make) for name in names]

    def part(self, part: str, options: Options) -> None:
        """Tell of a part of the run that has options and figures of its own."""
        self._tell(lambda tracker: tracker.part(part, options))

    def figures(self, step: int, figures: Mapping[str, float | None], part: str = "") -> None:
        numbers = {name: value for name, value in figures.items() if value is not None}
        self._tell(lambda tracker: tracker.figures(step, numbers, part))

    def results(self, names: Iterable[str], step: int = 0) -> None:
        """Files of the run's folder, and all that is in folders of it; pictures at a step."""
        for path in sorted(path for name in names for path in _files(self._folder / name)):
            name = path.relative_to(self._folder)
            if path.suffix == ".png":
                self._tell(lambda tracker, name=name: tracker.picture(step, name, self._folder))
            else:
                self._tell(lambda tracker, name=name: tracker.result(name, self._folder))

    def end(self, status: str, of_parts: Mapping[str, str] = MappingProxyType({})) -> None:
        """Wait until all is told, but not for ever. Parts end as the whole does, unless it is said of them."""
        for thread in self._threads:
            thread.end(lambda tracker: tracker.end(status, of_parts))

    def _make(self, name: str) -> Tracker:
        return TRACKERS[name][0](self._folder, self._options, self.first_step)

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for thread in self._threads:
            thread.tell(what)


def _files(path: Path) -> Iterable[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path][: path.is_file()]


class _Thread(threading.Thread):
    """Tells one tracker, in order."""

    def __init__(self, name: str, make: Callable[[str], Tracker]) -> None:
        super().__init__(name=name, daemon=True)  # one that hangs does not keep the command from ending
        self._make = make
        self._to_tell: Queue[Callable[[Tracker], None] | None] = Queue()  # none behind the last
        self._was_told = False
        self.start()

    def tell(self, what: Callable[[Tracker], None]) -> None:
        if self.is_alive():
            self._was_told = True
            self._to_tell.put(what)

    def end(self, last: Callable[[Tracker], None]) -> None:
        if self._was_told:  # else nothing happened
            self._to_tell.put(last)
        self._to_tell.put(None)
        self.join(SECONDS_TO_END)
        if self.is_alive():
            self._say(f"did not take all within {SECONDS_TO_END:.0f} s")

    def run(self) -> None:
        tracker = None
        try:
            while told := self._to_tell.get():
                tracker = tracker or self._make(self.name)
                told(tracker)
        except Exception as error:  # whatever a server, a network or a package does, is not the training's affair
            self._say(f"follows no more ({CREDENTIALS.sub('', ' '.join(str(error).split()))[:200]})")

    def _say(self, what: str) -> None:
        print(f"{self.name} {what}; nothing else depends on it.", file=sys.stderr)
