"""What `evaluate.py` and `compare.py` can be told. Light, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretrain.command import Names
from pretrain.data.images import LaidOut
from pretrain.tasks import Spread


@dataclass(frozen=True)
class Evaluate(LaidOut, Spread):
    """Compare methods on test categories that nothing was trained on, and write a report.

    Attributes:
        train: Categories whose labeled images methods may learn from. Default is capsule,hazelnut,leather.
        test: Categories that are only tested. Default is bottle,pill,wood, or every category in the other protocols.
        protocol: held-out, one-class (each category's own normals), or leave-one-out (each in turn is the unseen one).
        data: Folder of categories as docs/data.md shows. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder files, comma-separated; each seed takes the next that did not see the test category. Default
            is the newest finished one in runs/ that was pretrained on the same data; none for no pretrained encoder.
        methods: Only these methods; the controls always take part. Default is every method, with --quick the first of
            each family.
        shots: How many normals of a test category methods refer to; numbers, or all. Default is 4,all; for
            PaDiM, auto-encoders and the random encoder all; with --quick all.
        seeds: Each varies the split, the references drawn, heads, and the encoder where several are given. Default is
            0,1,2.
        size_px: Side of the square to which images are stretched. Default is 384, the least of detect.py; 224 for
            all methods across products without a GPU; with --quick 128.
        scales: Patch methods see each image at several shares of that size, such as 0.5,1, fused.
        false_alarm_rate: Share of good images that may be called defective; thresholds follow from it.
        restoration_minutes: Training time of each restorer, for their own table in the held-out protocol; 0 leaves it
            out. Default is 5 on a GPU, 0.25 without one, with --quick 0.15, and with --methods 0.
        quick: A first look in minutes; one method of each family, smaller images, fewer epochs, one seed.
        allow_seen: Test encoders on categories that they saw in pretraining; the report says so.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder of the study; the same command again resumes it.
        cores: On Ray, cores of each cell.
        memory_gb: On Ray, memory that each cell may take; no more run at once than there is memory for.
        patience_s: On Ray, seconds after which cells that are not done are given to another worker.
        only_report: Compute nothing; write the report of the finished cells in --out again.
        track: Also give the figures and the report to tensorboard, mlflow or both.
        record: Append the tables to this Markdown file.
        heading: Heading of these tables there.
    """

    train: Names | None = None
    test: Names | None = None
    protocol: Literal["held-out", "one-class", "leave-one-out"] = "held-out"
    data: Path | None = None
    encoder: Names = Names()
    methods: Names = Names()
    shots: Names | None = None
    seeds: Names | None = None
    size_px: int | None = None
    scales: Names = Names()
    false_alarm_rate: float = 0.05
    restoration_minutes: float | None = None
    quick: bool = False
    allow_seen: bool = False
    device: str = "auto"
    out: Path = Path("runs/study")
    cores: int = 1
    memory_gb: float = 3.0
    patience_s: int = 6 * 3600
    only_report: bool = False
    track: Names = Names()
    record: Path | None = None
    heading: str = "The study"


@dataclass(frozen=True)
class Compare:
    """Compare two studies, row by row, on the categories and seeds that both have.

    Attributes:
        first: Folder of a study, as downstream/evaluate.py made it.
        second: Folder of another; differences are second minus first.
        json: Write the comparison to this file too.
    """

    first: Path
    second: Path
    json: Path | None = None
