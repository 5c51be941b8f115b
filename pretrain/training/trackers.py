"""Who else follows a training: TensorBoard, MLflow. They are told what metrics.jsonl is told, and at the end get the
pictures and the result.

A training never waits for a tracker and never ends for one: each is told in a thread of its own, and one that fails, as
with a server that is away, is told nothing more.
"""

import os
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
OF_TRACKERS = TENSORBOARD_FOLDER, MLFLOW_FILE = "tensorboard", "mlflow-run"
EXPERIMENT = "heldout"
# MLflow's own defaults are two minutes, seven times over.
MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


class Tracker(Protocol):
    """Made in its thread at the first figures, whose step says where a resumed training goes on."""

    def figures(self, step: int, figures: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, path: Path) -> None: ...

    def result(self, path: Path) -> None: ...

    def end(self, is_finished: bool) -> None: ...


class TensorBoard:
    """Event files in the run's own folder: `tensorboard --logdir runs` shows all runs beside one another."""

    def __init__(self, folder: Path, options: Mapping[str, object], first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed process wrote of steps that are taken again is hidden.
        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_step or None)
        table = "\n".join(["| option | value |", "|---|---|", *(f"| {name} | {options[name]} |" for name in options)])
        self._writer.add_text("options", table, first_step)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def result(self, path: Path) -> None:
        """It has no place for files; they lie beside its own."""

    def end(self, is_finished: bool) -> None:
        self._writer.close()


class MLflow:
    """A run of the experiment `heldout`, or of $MLFLOW_EXPERIMENT_NAME, where $MLFLOW_TRACKING_URI says."""

    def __init__(self, folder: Path, options: Mapping[str, object], first_step: int) -> None:
        for name, value in MLFLOW_PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client, id_file = MlflowClient(), folder / MLFLOW_FILE
        if id_file.is_file():  # a resumed training goes on in its run
            self._run = id_file.read_text().strip()
            self._client.update_run(self._run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        write_whole(id_file, self._run.encode())
        for option, value in options.items():
            self._client.log_param(self._run, option, value)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now_ms = get_current_time_millis()
        self._client.log_batch(self._run, [Metric(name, value, now_ms, step) for name, value in figures.items()])

    def picture(self, step: int, name: str, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

    def result(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

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
    """All that were asked for."""

    def __init__(self, names: Iterable[str], folder: Path, options: Mapping[str, object]) -> None:
        self._threads = [_Thread(name, TRACKERS[name][0], folder, options) for name in names]

    def figures(self, step: int, figures: Mapping[str, float | None]) -> None:
        numbers = {name: value for name, value in figures.items() if value is not None}
        self._tell(lambda tracker: tracker.figures(step, numbers), step)

    def picture(self, step: int, name: str, path: Path) -> None:
        self._tell(lambda tracker: tracker.picture(step, name, path), step)

    def result(self, path: Path) -> None:
        self._tell(lambda tracker: tracker.result(path))

    def end(self, is_finished: bool) -> None:
        """Wait until all is told, but not for ever."""
        self._tell(lambda tracker: tracker.end(is_finished))
        for thread in self._threads:
            thread.end()

    def _tell(self, what: Callable[[Tracker], None], step: int = 0) -> None:
        for thread in self._threads:
            thread.tell(what, step)


class _Thread(threading.Thread):
    """Tells one tracker, in order."""

    def __init__(self, name: str, make: type, folder: Path, options: Mapping[str, object]) -> None:
        super().__init__(name=name, daemon=True)  # one that hangs does not keep the command from ending
        self._make, self._folder, self._options = make, folder, options
        self._to_tell: Queue[tuple[Callable[[Tracker], None], int] | None] = Queue()
        self.start()

    def tell(self, what: Callable[[Tracker], None], step: int) -> None:
        if self.is_alive():
            self._to_tell.put((what, step))

    def end(self) -> None:
        self._to_tell.put(None)
        self.join(SECONDS_TO_END)
        if self.is_alive():
            self._say(f"did not take all within {SECONDS_TO_END:.0f} s")

    def run(self) -> None:
        tracker = None
        try:
            while (told := self._to_tell.get()) is not None:
                what, step = told
                tracker = tracker or self._make(self._folder, self._options, step)
                what(tracker)
        except Exception as error:  # whatever a server, a network or a package does, is not the training's affair
            self._say(f"follows no more ({' '.join(str(error).split())[:200] or type(error).__name__})")

    def _say(self, what: str) -> None:
        print(f"{self.name} {what}; the training goes on, and metrics.jsonl has every figure.", file=sys.stderr)
