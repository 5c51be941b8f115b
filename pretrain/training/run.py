"""A run folder: what was asked, how it went, where it can go on, and a mark that it finished.

runs/NAME/config.yaml              the resolved configuration; another one into the same folder is refused
runs/NAME/metrics.jsonl            one line of figures for a step, only ever of steps that count
runs/NAME/checkpoint.safetensors   all that going on needs; always whole
runs/NAME/finished                 exists once the result is written

Trackers that the configuration names (`track`) are told what metrics.jsonl is told, and get the result.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import yaml
from torch import Tensor, nn
from torch.optim import Optimizer

from pretrain.command import Names, UserError
from pretrain.files import read_tensors, sole_writer, write_tensors, write_whole
from pretrain.reading import parse_json, read_regular, read_yaml
from pretrain.training.trackers import FINISHED, STOPPED, Trackers, check_trackers

# Of checkpoints. 2: of one session for all trainings, with its length, its seconds and a state.
FORMAT = 2


class Run:
    """One training's folder. Only the process that holds the folder writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint_file = folder / "checkpoint.safetensors"
        self.metrics_file = folder / "metrics.jsonl"
        self._finished_file = folder / "finished"
        self._trackers: Trackers | None = None

    @property
    def is_finished(self) -> bool:
        return self._finished_file.exists()

    def skip_if_finished(self, print_line: Callable[[str], object] = print) -> bool:
        """Whether there is nothing left to do, said in one line: a finished run is never trained over."""
        if self.is_finished:
            print_line(f"{self.folder} holds a finished run: choose another --out for a new one.")
        return self.is_finished

    @contextmanager
    def held(self, config: object) -> Iterator[None]:
        """The right to write into the folder; UserError if another process has it, or it belongs to other options. On
        another device it may go on, which stderr says."""
        with as_user_errors(self.folder), sole_writer(self.folder, "trains in", "another --out"):
            for unfinished in self.folder.glob(".*.part"):  # by killed writers, each as large as a checkpoint
                unfinished.unlink()
            names = getattr(config, "track", ())
            check_trackers(names)
            self._keep(config)
            self._trackers = Trackers(names, self.folder, self.config())
            try:
                yield
            finally:
                self._trackers.end(FINISHED if self.is_finished else STOPPED)

    def config(self) -> dict:
        """The stored configuration, plain."""
        file = self.folder / "config.yaml"
        try:
            return read_yaml(file)
        except (OSError, ValueError) as error:
            reason = f"{file} is damaged ({error})"
            raise UserError(f"{reason}: remove it to go on with the options that you give now.") from None

    def earlier(self, name: str) -> object:
        """What an option was resolved to when the run began; none where it has not begun. For what was measured then
        and might be measured otherwise now."""
        return self.config().get(name) if (self.folder / "config.yaml").is_file() else None

    def log(self, step: int, **figures: float) -> None:
        """Add a line of figures; a line that a kill cut off stays one of its own."""
        line = json.dumps({"step": step, **figures}).encode() + b"\n"
        with open(self.metrics_file, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
        if self._trackers:
            self._trackers.figures(step, figures)

    def metrics(self) -> list[dict]:
        """All lines; one that was cut off by a kill, or is damaged, is left out."""
        if not self.metrics_file.exists():
            return []
        metrics = []
        for line in read_regular(self.metrics_file).splitlines():
            with suppress(ValueError):
                metrics.append(parse_json(line, {"step": int}))
        return metrics

    def save(self, module: nn.Module, optimizer: Optimizer, metadata: dict) -> None:
        """Write a checkpoint; `metadata` is JSON and holds the number of finished steps as `step`."""
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        scalars = {}
        for position, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{position}.{name}"] = value
                else:
                    scalars[f"{position}.{name}"] = value
        write_tensors(self.checkpoint_file, tensors, {**metadata, "format": FORMAT, "optimizer": scalars})

    def restore(self, module: nn.Module, optimizer: Optimizer) -> dict | None:
        """Put a checkpoint back and return its metadata; None where there is none. Writes nothing.

        Raises UserError for a checkpoint of another format.
        """
        if not self.checkpoint_file.exists():
            return None
        tensors, metadata = read_tensors(self.checkpoint_file)
        if (number := metadata.get("format", 1)) != FORMAT:
            raise UserError(
                f"{self.checkpoint_file} is of format {number} and this heldout resumes format {FORMAT}: finish it "
                "with the version that began it, or choose another --out."
            )
        module.load_state_dict(
            {name.removeprefix("module."): t for name, t in tensors.items() if name[:7] == "module."}
        )
        states: dict[int, dict] = {}
        for name, value in [*tensors.items(), *((f"optimizer.{name}", v) for name, v in metadata["optimizer"].items())]:
            if name.startswith("optimizer."):
                _, position, key = name.split(".", 2)
                states.setdefault(int(position), {})[key] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return metadata

    def forget_figures_from(self, step: int) -> None:
        """Drop the lines of steps that a killed run took after its last checkpoint: they are taken again."""
        if self._trackers:
            self._trackers.first_step = step
        kept = [line for line in self.metrics() if line["step"] < step]
        write_whole(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def finish(self, *results: str) -> None:
        """Mark the run as finished; its checkpoint has served. `results` are the files and folders of it that trackers
        get: nothing else that lies in the folder is theirs."""
        self._finished_file.touch()
        self.checkpoint_file.unlink(missing_ok=True)
        self.show("config.yaml", "metrics.jsonl", *results)

    def show(self, *results: str) -> None:
        """Give trackers files and folders of the run, at the step that was logged last."""
        if self._trackers:
            self._trackers.results(results, max((line["step"] for line in self.metrics()), default=0))

    def _keep(self, config: object) -> None:
        """Store the configuration, or compare it with the stored one."""
        wanted = _plain(asdict(config))
        for name in ("out", "track"):  # a folder may be moved, and who follows changes nothing
            wanted.pop(name, None)
        file = self.folder / "config.yaml"
        if not file.exists():
            write_whole(file, yaml.safe_dump(wanted, sort_keys=False).encode())
            return
        stored = self.config()
        if (began_on := stored.get("device")) != (device := wanted.get("device")):
            print(f"{self.folder} began on {began_on} and goes on on {device}: sums round otherwise there, so its end "
                  "is near the one that it would have had, and not the same bit for bit", file=sys.stderr)  # fmt: skip
            stored.pop("device", None), wanted.pop("device", None)
        differing = sorted(key for key in wanted.keys() | stored.keys() if wanted.get(key) != stored.get(key))
        if differing:
            changes = ", ".join(f"{key} was {stored.get(key)} and is {wanted.get(key)}" for key in differing)
            raise UserError(f"{self.folder} holds a run with other options ({changes}): choose another --out.")


@contextmanager
def as_user_errors(folder: Path) -> Iterator[None]:
    """A disk that is full or may not be written is the user's to mend, not a traceback."""
    try:
        yield
    except OSError as error:
        reason = f"{folder} cannot be written ({error}); what was saved before is whole"
        raise UserError(f"{reason}. Make room, or choose another --out.") from error


def _plain(value: object) -> object:
    """As YAML gives it back."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Names | Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
