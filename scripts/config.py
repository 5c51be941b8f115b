"""The options of the scripts: light, so that `--help` answers before torch is imported."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.command import Names
from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class DefectNeighbors(LaidOut):
    """Measure how often neighbors share a defect, on categories that the encoder never saw.

    Attributes:
        data: Folder of categories in MVTec AD's layout.
        categories: Categories to measure. Default is each of the folder's.
        seeds: Seeds of the encoders, pretrained and random.
        runs: Folder in which scripts/leave_one_out.py left the encoders.
        size_px: Side of the square that images are stretched to.
        json: Write all figures to this file.
        record: Append the tables to this file.
    """

    data: Path
    categories: Names = Names()
    seeds: Names = Names("0")
    runs: Path = Path("runs/leave_one_out")
    size_px: int = 224
    json: Path | None = None
    record: Path | None = None


@dataclass(frozen=True)
class DocImages:
    """Draw the images of README.md and docs/.

    Attributes:
        data: The demo images.
        runs: What demo.sh computed on them.
    """

    data: Path = Path("data/demo")
    runs: Path = Path("runs/demo")


@dataclass(frozen=True)
class Notebooks:
    """Run the notebooks of docs/notebooks/ and keep in them what they print and show.

    Attributes:
        only: These of them, by their files' names without .ipynb. Default is all.
    """

    only: Names = Names()


@dataclass(frozen=True)
class LeaveOneOut(LaidOut):
    """Pretrain without each category in turn, and evaluate on it beside a random encoder.

    Attributes:
        data: Folder of categories in MVTec AD's layout.
        categories: Categories to leave out. Default is each of the folder's.
        groups: Leave several out at once, such as a,b;c,d, which takes fewer encoders.
        seeds: One encoder for each seed.
        methods: Methods of downstream/evaluate.py to compare the encoders with.
        out: Folder of the runs; the same command resumes them.
        pretrain: Further options for pretrain/simclr.py, such as "--steps 50".
        evaluate: Further options for downstream/evaluate.py, such as "--size-px 128".
        heading: Heading of the tables in the record.
        record: Append the tables to this Markdown file.
    """

    data: Path
    categories: Names = Names()
    groups: str = ""
    seeds: Names = Names("0")
    methods: Names = Names("padim,patchcore")
    out: Path = Path("runs/leave_one_out")
    pretrain: str = ""
    evaluate: str = ""
    heading: str = "Left out of pretraining"
    record: Path | None = None


@dataclass(frozen=True)
class Chaos:
    """Attack heldout: kill its commands, damage its files, feed it hostile images, command lines and requests.

    Attributes:
        minutes: How long, all parts together; each is tried once at least.
        tries: At most so many of each part, 0 for as many as there is time; or exactly so many of some parts, however
            long that takes, such as kills=100,images=250.
        seed: Another seed, other attacks.
        only: Only these tries of this seed, by the names of the folders that they left, such as kills-12.
        parts: Only these; kills, damage, images, command-lines, options, http, service-kills, line-kills, line-http,
            postgres, full-disk, pairs, ray, soak. Default is all: postgres and ray where they are installed,
            full-disk where one may be mounted, soak from 240 minutes on; 120 of soak alone are two hours of steady
            load.
        model: A model of yours, that detect.py fit made: a copy of it is served, stands in a line, inspects hostile
            images and is damaged. Default is a small one, made here.
        out: Folder for what did not hold; what earlier campaigns left there is removed first, with `only` that of these
            tries alone.
        record: Append the table to this Markdown file.
    """

    minutes: float = 2.0
    tries: int | Names = 0
    seed: int = 0
    only: Names = Names()
    parts: Names = Names()
    model: Path | None = None
    out: Path = Path("runs/chaos")
    record: Path | None = None


@dataclass(frozen=True)
class Extras:
    """Write the table of extras into docs/install.md.

    Attributes:
        check: Write nothing; exit code 1 if the table has other extras than setup.cfg.
    """

    check: bool = False
