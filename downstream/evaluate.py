"""The study: methods on products that nothing was trained on, beside a random encoder and the trivial answers.

    python downstream/evaluate.py --train capsule,hazelnut,leather --test bottle,pill,wood
    python downstream/evaluate.py --quick                        # minutes, on the demo data: does everything run?
    python downstream/evaluate.py --protocol one-class           # each category's own normals, the classic benchmark
    python downstream/evaluate.py --protocol leave-one-out       # every category in turn is the unseen one

Every finished part is kept in --out: the same command goes on where it was stopped, and --only-report draws the report
of what is finished. Results: OUT/report.html to read, OUT/report.json for machines, OUT/cells with all predictions.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.study.config import Evaluate
    from pretrain.command import start

    start("downstream.evaluate:main", Evaluate)

import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from downstream.study.config import Evaluate
from pretrain.command import Names, UserError
from pretrain.files import write_json

if TYPE_CHECKING:
    import torch

    from downstream.study.cell import Work
    from downstream.study.plan import Study

STUDY_FILE = "study.json"


def main(config: Evaluate) -> int:
    """Compute what is not finished yet and write the report. Returns 1 where a part failed."""
    if config.only_report:
        show(config)
        return 0
    from filelock import FileLock, Timeout

    from downstream.study.plan import make_study

    study = make_study(config)
    write_plan(study, config)
    lock = FileLock(config.out / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process computes in {config.out}: wait for it, or choose another --out.") from None
    try:
        failures = compute(study.works, config.out, choose_device(config.device))
    finally:
        lock.release()
    write_plan(study, config, failures)
    is_restored = compare_restorers(config)
    show(config)
    return 1 if failures or not is_restored else 0


def compute(works: "Sequence[Work]", out: Path, device: "torch.device") -> list[dict]:
    """Run the cells that are not there yet, each kept as soon as it is finished. Returns what failed, and why."""
    from downstream.study.cell import Fitted, read, run, write
    from pretrain.progress import Progress

    missing = [work for work in works if not is_finished(work.cell.file(out), read)]
    fitted, failures = Fitted(), []
    with Progress("study", len(works), "parts", done=len(works) - len(missing)) as progress:
        for work in missing:
            cell = work.cell
            try:
                write(run(work, fitted, device), cell.file(out))
            except OSError:  # a full disk: whatever comes next would be lost too
                raise
            except Exception as error:
                # One part that cannot be computed must not cost a night's others.
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                if not isinstance(error, UserError) and reason not in {failure["reason"] for failure in failures}:
                    progress.print(traceback.format_exc())
                progress.print(f"failed: {cell.row.name} on {cell.category}, seed {cell.seed}: {reason}")
                failures.append({"row": asdict(cell.row), "category": cell.category, "seed": cell.seed,
                                 "reason": reason})  # fmt: skip
            progress.advance(note=f"{cell.row.name} on {cell.category}, seed {cell.seed}")
    return failures


def compare_restorers(config: Evaluate) -> bool:
    """Train and judge restorers on the same categories, for a table of their own. False: it could not be made."""
    minutes = config.restoration_minutes
    if minutes is None:
        minutes = 0 if config.methods else 0.1 if config.quick else 5.0
    if not minutes or config.protocol != "held-out":
        return True
    from downstream.restoration.config import RestorationStudy
    from downstream.restoration.study import compute_study
    from downstream.study.summary import RESTORATION_FILE

    sizes = {"input_size": 64, "crop_px": 48, "seeds": Names("0")} if config.quick else {}
    sizes |= {"seeds": config.seeds} if config.seeds else {}
    same = {name: getattr(config, name) for name in ("data", "train", "test", "encoder", "device")}
    try:
        table = compute_study(RestorationStudy(**same, **sizes, minutes=minutes, out=config.out / "restoration"))
    except UserError as error:  # the other tables are there all the same
        print(f"warning: restorers are not compared: {error}", file=sys.stderr)
        return False
    write_json(config.out / RESTORATION_FILE, table._asdict())
    return True


def is_finished(file: Path, read) -> bool:
    """Whether a cell is there and whole; a damaged one is computed again."""
    if not file.is_file():
        return False
    try:
        read(file)
    except UserError as error:
        print(f"{error} It is computed again.", file=sys.stderr)
        return False
    return True


def choose_device(name: str) -> "torch.device":
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"there is no device {name}; choose from auto, cpu, cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device here; use --device cpu, or install a torch build that fits the GPU."
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def write_plan(study: "Study", config: Evaluate, failures: Sequence[dict] = ()) -> None:
    """Keep what the report needs beside the cells, so that it can be drawn again without the images."""
    command = shlex.join(["python", "downstream/evaluate.py", *sys.argv[1:]])
    metadata = study.metadata | {"command": command, "failures": list(failures)}
    metadata["cells"] = [str(work.cell.file(Path())) for work in study.works]
    write_json(config.out / STUDY_FILE, metadata)


def show(config: Evaluate) -> None:
    """Write report.json and report.html from what is finished, print the table, and record it where that is asked."""
    from downstream.report.page import write_report
    from downstream.report.terminal import print_tables
    from downstream.study.summary import summarize

    out, file = config.out, config.out / STUDY_FILE
    if not file.is_file():
        raise UserError(
            f"there is no study in {out}; leave --only-report out to make one, or name its folder by --out."
        )
    summary, results = summarize(out, json.loads(file.read_text()))
    write_json(out / "report.json", summary)
    write_report(summary, results, out / "report.html")
    print_tables(summary)
    print(f"report: {out / 'report.html'}")
    print(f"figures for machines: {out / 'report.json'}")
    if config.record:
        from downstream.report.markdown import as_markdown

        with open(config.record, "a", encoding="utf-8") as record:
            record.write("\n" + as_markdown(summary, config.heading))
        print(f"recorded: {config.record}")
