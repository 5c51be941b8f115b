"""Who else follows a training: TensorBoard, MLflow. They are told what metrics.jsonl is told, and at the end get the
pictures and the result.

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
from typing import Protocol

import numpy as np
from PIL import Image

from pretrain.command import UserError
from pretrain.data.images import check_names
from pretrain.files import write_whole

# What is still to be told once the training is over, for as long; then the command ends without.
SECONDS_TO_END = 60.0
# What trackers keep in a run's folder.
TENSORBOARD_FOLDER, MLFLOW_FILE = "tensorboard", "mlflow-run"
EXPERIMENT = "heldout"
# Unless the user says otherwise: MLflow waits two minutes, seven times over, and tells its makers what it is used for.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_DISABLE_TELEMETRY": "true",
}  # fmt: skip
# User and password of an address, which messages about servers repeat.
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class Tracker(Protocol):
    """Made in its thread when there is something to tell; `first_step` is where a resumed training goes on."""

    def figures(self, step: int, figures: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: Path, folder: Path) -> None: ...

    def result(self, name: Path, folder: Path) -> None: ...

    def end(self, is_finished: bool) -> None: ...


class TensorBoard:
    """Event files in the run's own folder: `tensorboard --logdir runs` shows all runs beside one another."""

    def __init__(self, folder: Path, options: Mapping[str, object], first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process wrote of steps that are taken again is hidden.
        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_step)
        table = "\n".join(["| option | value |", "|---|---|", *(f"| {name} | {options[name]} |" for name in options)])
        self._writer.add_text("options", table, first_step)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: Path, folder: Path) -> None:
        with Image.open(folder / name) as image:
            title = name.with_suffix("").as_posix()
            self._writer.add_image(title, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def result(self, name: Path, folder: Path) -> None:
        """It has no place for files; they lie beside its own."""

    def end(self, is_finished: bool) -> None:
        self._writer.close()


class MLflow:
    """A run of the experiment `heldout`, or of $MLFLOW_EXPERIMENT_NAME, where $MLFLOW_TRACKING_URI says."""

    def __init__(self, folder: Path, options: Mapping[str, object], first_step: int) -> None:
        for name, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client, id_file = MlflowClient(), folder / MLFLOW_FILE
        if id_file.is_file():  # a resumed training goes on in its run
            self._run = id_file.read_text().strip()
            self._client.update_run(self._run, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self._client.create_experiment(name)
            self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
            write_whole(id_file, self._run.encode())
        for option, value in options.items():  # the same again changes nothing
            self._client.log_param(self._run, option, value)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now_ms = get_current_time_millis()
        self._client.log_batch(self._run, [Metric(name, value, now_ms, step) for name, value in figures.items()])

    def picture(self, step: int, name: Path, folder: Path) -> None:
        self.result(name, folder)

    def result(self, name: Path, folder: Path) -> None:
        within = None if name.parent == Path() else name.parent.as_posix()
        self._client.log_artifact(self._run, str(folder / name), within)

    def end(self, is_finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if is_finished else "KILLED")


TRACKERS: dict[str, tuple[type, str]] = {"tensorboard": (TensorBoard, "tensorboard"), "mlflow": (MLflow, "mlflow")}


def check_trackers(names: Iterable[str]) -> None:
    """Raise UserError for one that does not exist or is not installed, before anything is trained."""
    check_names(names, TRACKERS, "tracker")
    for name in names:
        if find_spec(TRACKERS[name][1]) is None:
            raise UserError(f"--track {name} needs a package that is not here: pip install 'heldout[{name}]'.")


class Trackers:
    """All that were asked for; `folder` is the run's."""

    def __init__(self, names: Iterable[str], folder: Path, options: Mapping[str, object]) -> None:
        self._folder, self._options, self.first_step = folder, options, 0
        self._threads = [_Thread(name, self._make) for name in names]

    def figures(self, step: int, figures: Mapping[str, float | None]) -> None:
        numbers = {name: value for name, value in figures.items() if value is not None}
        self._tell(lambda tracker: tracker.figures(step, numbers))

    def results(self, names: Iterable[str], metrics: Iterable[Mapping[str, float]] = ()) -> None:
        """Files of the run's folder, and all that is in folders of it; pictures at the last step."""
        last = max((line["step"] for line in metrics), default=0)
        for path in sorted(path for name in names for path in _files(self._folder / name)):
            name = path.relative_to(self._folder)
            if path.suffix == ".png":
                self._tell(lambda tracker, name=name: tracker.picture(last, name, self._folder))
            else:
                self._tell(lambda tracker, name=name: tracker.result(name, self._folder))

    def end(self, is_finished: bool) -> None:
        """Wait until all is told, but not for ever."""
        for thread in self._threads:
            thread.end(is_finished)

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
        self._to_tell: Queue[Callable[[Tracker], None] | bool] = Queue()
        self.start()

    def tell(self, what: Callable[[Tracker], None]) -> None:
        if self.is_alive():
            self._to_tell.put(what)

    def end(self, is_finished: bool) -> None:
        self._to_tell.put(is_finished)
        self.join(SECONDS_TO_END)
        if self.is_alive():
            self._say(f"did not take all within {SECONDS_TO_END:.0f} s")

    def run(self) -> None:
        tracker = None
        try:
            while not isinstance(told := self._to_tell.get(), bool):
                tracker = tracker or self._make(self.name)
                told(tracker)
            if tracker:  # else nothing happened
                tracker.end(is_finished=told)
        except Exception as error:  # whatever a server, a network or a package does, is not the training's affair
            self._say(f"follows no more ({CREDENTIALS.sub('', ' '.join(str(error).split()))[:200]})")

    def _say(self, what: str) -> None:
        print(f"{self.name} {what}; nothing else depends on it.", file=sys.stderr)
