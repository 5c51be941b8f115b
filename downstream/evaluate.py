"""The study: what SimCLR adds to its start, method by method, on products that nothing was trained on.

    python downstream/evaluate.py --train capsule,hazelnut,leather --test bottle,pill,wood
    python downstream/evaluate.py --quick                        # minutes, on the demo data: one method a family
    python downstream/evaluate.py --protocol one-class           # each category's own normals, the classic benchmark
    python downstream/evaluate.py --protocol leave-one-out       # every category in turn is the unseen one
    python downstream/evaluate.py --address local                # cells on Ray's workers, of this machine or of many

Each row has its control beside it: what the SimCLR encoder started from, a random encoder, the trivial answers.
Every finished cell, a method with an encoder and a seed on one category, is kept in --out: the same command resumes
where it was stopped, and --only-report writes the report of what is finished. Results: OUT/report.html to read,
OUT/report.json for machines, OUT/cells with all predictions.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.study.config import Evaluate
    from pretrain.command import start

    start("downstream.evaluate:main", Evaluate)

import shlex
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from downstream.report.markdown import as_markdown
from downstream.report.page import write_report
from downstream.report.terminal import print_tables
from downstream.report.tracking import Followers
from downstream.restoration.config import RestorationStudy
from downstream.restoration.study import DEFAULT_ROWS, compute_study
from downstream.restoration.table import cell_file
from downstream.study.cell import read_cell
from downstream.study.compute import CellTask
from downstream.study.config import Evaluate
from downstream.study.estimate import Rates, StudyClock, machine_of, plan_lines
from downstream.study.plan import StudyPlan, plan_study
from downstream.study.record import RESTORATION_FILE, is_finished, read_study, write_study
from downstream.study.running import Board
from downstream.study.spread import outcomes
from downstream.study.summary import summarize
from pretrain.command import Names, UserError
from pretrain.files import sole_writer, write_json
from pretrain.progress import Progress, duration
from pretrain.tasks import Here, Needs, tasks_at
from pretrain.training.device import choose_device
from pretrain.training.trackers import check_trackers


def main(config: Evaluate) -> int:
    """Compute what is not finished yet and write the report. Returns 1 where a cell failed."""
    check_trackers(config.track)
    if config.only_report:
        with Followers(config.track, config.out, study := read_study(config.out)) as followers:
            write_reports(config, followers, study.get("is_restored", True))
        return 0
    plan = plan_study(config)
    for warning in plan.metadata["warnings"]:  # the report has them too; here before hours are spent
        print(f"warning: {warning}", file=sys.stderr)
    study = {**plan.metadata, "command": shlex.join(["python", "downstream/evaluate.py", *sys.argv[1:]])}
    study["cells"] = [str(task.cell.file(Path())) for task in plan.tasks]
    with Followers(config.track, config.out, study) as followers:
        with sole_writer(config.out, "computes in", "another --out"):
            # Before the first cell, so that a study that is stopped can be reported, and again with what failed.
            write_study(config.out, {**study, "failures": []})
            failures = compute_missing(plan, config, followers)
            write_study(config.out, {**study, "failures": failures})
            study["is_restored"] = compare_restorers(config)
            write_study(config.out, {**study, "failures": failures})  # for a report that is made later
        write_reports(config, followers, study["is_restored"])
    return 1 if failures or not study["is_restored"] else 0


def compute_missing(plan: StudyPlan, config: Evaluate, followers: Followers) -> list[dict]:
    """Say how long it will take, and what comes after; compute the cells that are not there yet, each kept as soon as
    it is finished. Returns what failed, and why."""
    out, device, failures = config.out, choose_device(config.device), []
    missing = [task for task in plan.tasks if not is_finished(task.cell.file(out))]
    finished = len(plan.tasks) - len(missing)
    if config.cores < 1 or config.memory_gb < 0:
        raise UserError(
            f"--cores {config.cores} and --memory-gb {config.memory_gb:g} are no share of a machine: give 1 core or "
            "more, and 0 GiB or more."
        )
    needs = Needs(config.cores, round(config.memory_gb * 2**30))
    with ExitStack() as opened:
        tasks, board = opened.enter_context(tasks_at(config, device.type, needs)), None
        cores = None if isinstance(tasks, Here) else config.cores
        clock = StudyClock(missing, Rates(), machine_of(device, cores), tasks.at_once)
        lines = [*plan_lines(clock, finished), restoration_line(config)]
        if cores and missing:
            board = opened.enter_context(Board(out))
            lines.insert(1, f"  on Ray: {tasks.at_once} at once, {cores} cores and {config.memory_gb:g} GiB each")
        print("\n".join(filter(None, lines)), file=sys.stderr, flush=True)
        left = clock.time_left if board is None else lambda: f"{clock.time_left()}; {board.in_words()}"
        progress = opened.enter_context(
            Progress("study", len(plan.tasks), "cells", finished, left, board and board.table)
        )

        def begins(task: CellTask) -> None:
            progress.running(task.title)
            clock.start(task)

        for task, outcome in outcomes(plan, clock.tasks, config, device, tasks, begins):
            cell = task.cell
            if outcome and outcome.reason:
                if outcome.trace and outcome.reason not in {failure["reason"] for failure in failures}:
                    progress.print(outcome.trace)
                progress.print(f"failed: {task.title}: {outcome.reason}")
                failures.append({"row": asdict(cell.row), "category": cell.category, "seed": cell.seed,
                                 "reason": outcome.reason})  # fmt: skip
            elif config.track:
                followers.cell(read_cell(cell.file(out)))
            if clock.finish(task, outcome.seconds if outcome else 0.0, outcome and outcome.metadata):
                progress.print(f"study: all methods are measured; {clock.time_left()}; most of it: {clock.costliest()}")
            progress.advance(note=task.title)
    return failures


def compare_restorers(config: Evaluate) -> bool:
    """Train and test restorers on the same categories, for a table of their own. False: it could not be made."""
    study = restoration_study(config)
    if study is None:
        return True
    try:
        table = compute_study(study)
    except UserError as error:  # the other tables are there all the same
        print(f"warning: restorers are not compared: {error}", file=sys.stderr)
        return False
    write_json(config.out / RESTORATION_FILE, table._asdict())
    return True


def restoration_study(config: Evaluate) -> RestorationStudy | None:
    """The study of restorers that goes with this one; none where nobody asked for it."""
    minutes = config.restoration_minutes
    if minutes is None:
        usual = 5.0 if choose_device(config.device).type == "cuda" else 0.25  # a CPU has twelve of them to train
        minutes = 0 if config.methods else 0.15 if config.quick else usual
    if not minutes or config.protocol != "held-out":
        return None
    # At 256 px two cores took 8 minutes a seed for four restorers on all test images, half of it for SADNet.
    sizes = {} if choose_device(config.device).type == "cuda" else {"input_size": 128, "images": 12}
    if config.quick:
        ours = "imagenet" if config.encoder == ("none",) else "simclr"
        sizes |= {"input_size": 64, "crop_px": 48, "seeds": Names("0"), "rows": Names(f"sadnet,{ours}")}
    sizes |= {"seeds": config.seeds} if config.seeds else {}
    same = {name: getattr(config, name) for name in ("data", "layout", "train", "test", "encoder", "device")}
    return RestorationStudy(**same, **sizes, minutes=minutes, out=config.out / "restoration")


def restoration_line(config: Evaluate) -> str:
    """How long the restorers take after the cells: their training is a given time, their evaluation is not. Empty
    where there is nothing to train."""
    study = restoration_study(config)
    if study is None:
        return ""
    cells = [(row, int(seed)) for row in study.rows or DEFAULT_ROWS for seed in study.seeds]
    missing = sum(not cell_file(study.out, row, seed).is_file() for row, seed in cells)
    if not missing:
        return ""
    total = duration(60 * study.minutes * missing)
    return f"  then up to {missing} restorers of {study.minutes:g} min: {total}, and their evaluation"


def write_reports(config: Evaluate, followers: Followers, is_restored: bool = True) -> None:
    """Write report.json and report.html from what is finished, print the table, and record it where that is asked."""
    out = config.out
    summary, results = summarize(out, read_study(out))
    write_json(out / "report.json", summary)
    write_report(summary, results, out / "report.html")
    print_tables(summary)
    print(f"report: {out / 'report.html'}")
    print(f"figures for machines: {out / 'report.json'}")
    if config.record:
        with open(config.record, "a", encoding="utf-8") as record:
            record.write("\n" + as_markdown(summary, config.heading))
        print(f"recorded: {config.record}")
    followers.report(summary, results, is_restored)
