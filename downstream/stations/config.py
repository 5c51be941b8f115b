"""What a line is told: the options of line.py, and what the lists of stations and sinks in its YAML become."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from downstream.service.config import DEFAULT_MODELS
from downstream.stations.options import Options
from downstream.stations.triggers.config import Every
from pretrain.command import Names


@dataclass(frozen=True)
class Config:
    """Judge parts on a production line: cameras in, signals out.

    Attributes:
        stations: List of stations, each with a name, a source, a trigger and a model; as docs/line.md shows.
        sinks: List of where signals go.
        models: Folder of models, folders that detect.py fit wrote and files that export.py wrote, or one of them.
        state: Folder of what the line must not forget: parts, and signals that were not delivered yet.
        images_mb: At most so many MiB of images wait in it for sinks that want them; the oldest go first, and their
            signals go out without.
        only: Names of the stations that this process runs; it needs a state and a port of its own then, and of an mqtt
            sink a topic and a sparkplug.
        host: Address to listen at. Beyond this machine a token is required: --token-file, HELDOUT_TOKEN or --users.
        port: Port of the line's own HTTP, for its page, status, events, pushed images and calls; 0 takes a free one.
            Default is not to listen.
        allowed_hosts: Host names that clients may ask for, beside those of this machine.
        token_file: File with the token that every request has to bring.
        users: File of users as the service has it, or HELDOUT_USERS with its lines. An auditor may watch, and not push
            images or call for parts.
        batch_size: At most so many images in one forward pass.
        threads: Threads of the model. Default is all cores.
        device: cpu, cuda, or auto for a GPU where there is one.
        check: Check the configuration, look whether receivers answer, and start nothing.
        schema: Print the JSON schema of the configuration, line, or of what goes out, signal; and start nothing.
    """

    stations: list[dict[str, Any]] = field(default_factory=list)
    sinks: list[dict[str, Any]] = field(default_factory=list)
    models: Path = DEFAULT_MODELS
    state: Path = Path("runs/line")
    images_mb: int = 1024
    only: Names = Names()
    host: str = "127.0.0.1"
    port: int | None = None
    allowed_hosts: Names = Names()
    token_file: Path | None = None
    users: Path | None = None
    batch_size: int = 16
    threads: int | None = None
    device: str = "auto"
    check: bool = False
    schema: Literal["line", "signal"] | None = None


@dataclass(frozen=True)
class Station:
    """One place at which parts are judged.

    Attributes:
        name: Its name, of letters, digits, dots, dashes and underscores.
        source: Where frames come from: {type: folder, ...}.
        trigger: When a part begins: {type: every} unless said otherwise.
        model: Name of its model. Default is the only one there is.
        frames: How many frames a part's verdict is of.
        verdict: A part fails if any of its frames does, the majority, or the one of the highest score (max).
        budget_ms: Without a verdict so long after its beginning a part is a fault.
        waiting: What becomes of a camera's frames that come while the model is busy: the newest wins, others are
            dropped and counted; or they queue.
        queue: So many parts may wait; one more is a fault at once.
        silence_s: A live source that gives no frame for so long is a fault of the station, and is made anew. Default is
            to wait without end.
        threshold: Decide by this threshold in place of the model's own.
    """

    name: str
    source: Options
    trigger: Options = field(default_factory=Every)
    model: str | None = None
    frames: int = 1
    verdict: Literal["any", "majority", "max"] = "any"
    budget_ms: float = 1000.0
    waiting: Literal["newest", "queue"] = "newest"
    queue: int = 16
    silence_s: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class SinkOf:
    """One receiver: its kind's own options stand beside these.

    Attributes:
        name: Its name; the same in all of the line's life, as what it has not got yet is kept by it. Default is its
            type.
        stations: Only signals of these stations.
        options: Those of its type.
    """

    name: str
    stations: Names
    options: Options


@dataclass(frozen=True)
class Line:
    """A configuration that was read: every name known, every part's own options checked."""

    stations: Sequence[Station]
    sinks: Sequence[SinkOf]
