"""Leave one category out: pretrain on the others, never open it, and measure on it beside a random encoder.

    python scripts/leave_one_out.py --data data/mvtec --seeds 0,1,2 --record RESULTS.md

Runs `pretrain/simclr.py` and `scripts/probe.py` for every category and seed, one after another; finished parts are
kept, so that the same command goes on where it was stopped. `--pretrain "--steps 50"` hands options on, to try an
idea; `--record` appends the table and the command to a file.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import run_command
    from scripts.leave_one_out import Config, main

    sys.exit(run_command(main, Config))

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean, stdev

from pretrain.command import Names, UserError
from scripts.probe import METHODS, RANDOM

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Config:
    """Pretrain without each category in turn, and measure on it beside a random encoder.

    Attributes:
        data: Folder of categories in MVTec AD's layout.
        categories: Which to leave out. Default is each of the folder's.
        groups: Leave several out at once, such as a,b;c,d, which takes fewer encoders.
        seeds: One encoder of each seed.
        out: Folder of the runs.
        pretrain: Further options for pretrain/simclr.py.
        idea: What is tried, in a few words; the title in the record.
        record: Append the table to this file.
    """

    data: Path
    categories: Names = Names()
    groups: str = ""
    seeds: Names = Names("0")
    out: Path = Path("runs/leave_one_out")
    pretrain: str = ""
    idea: str = "the default recipe"
    record: Path | None = None


def main(config: Config) -> None:
    """Train, measure, and print the table."""
    from pretrain.data.images import category_folders, check_names

    found = category_folders(config.data)
    check_names(config.categories, found, f"category in {config.data}")
    left_out = [Names(group) for group in config.groups.split(";") if group] or [
        Names([name]) for name in config.categories or sorted(found)
    ]
    if len(found) < 2:
        raise UserError(f"{config.data} has one category: with it left out there is nothing to learn from.")
    runs = [
        (group, seed, config.out / f"without-{'-'.join(group)}-seed-{seed}")
        for seed in config.seeds
        for group in left_out
    ]
    figures: dict[str, list[dict]] = {}
    for group, seed, run in runs:
        print(f"without {group}, seed {seed}: {run}", file=sys.stderr, flush=True)
        train = ["pretrain/simclr.py", "--data", config.data, "--hold-out", group, "--seed", seed, "--out", run]
        call(*train, *shlex.split(config.pretrain))
        measured = run / "probe.json"
        if not measured.exists():
            encoder = run / "encoder.safetensors"
            probe = ["scripts/probe.py", "--encoder", encoder, "--data", config.data, "--categories", group]
            call(*probe, "--seed", seed, "--json", measured)
        control, ours = json.loads(measured.read_text()).values()
        for category in group:
            figures.setdefault(category, []).append({RANDOM: control[category], "pretrained": ours[category]})
    table = "\n".join(as_markdown(figures))
    print(table)
    if config.record:
        command = shlex.join(["python", "scripts/leave_one_out.py", *sys.argv[1:]])
        hardware = f"{os.cpu_count()} cores, {platform.machine()}"
        metadata = f"{date.today()}, {hardware}, seeds {config.seeds}, commit {commit()}"
        with open(config.record, "a") as file:
            file.write(f"\n## Left out of pretraining: {config.idea}\n\n{metadata}\n\n    {command}\n\n{table}\n")


def call(script: str, *arguments: object) -> None:
    """Run one of our commands; UserError if it fails, with its own words above."""
    done = subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=False)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}; the same command goes on from there.")


def as_markdown(figures: dict[str, list[dict]]) -> list[str]:
    """Image AUROC, mean and standard deviation over seeds, of the random encoder and of ours."""
    lines = ["| left out | " + " | ".join(f"{method}: random | pretrained" for method in METHODS) + " |"]
    lines.append("|---|" + "---|" * 2 * len(METHODS))
    for category, by_seed in figures.items():
        lines.append(row(category, by_seed))
    seeds = len(next(iter(figures.values())))
    means = [
        {
            name: {method: mean(by_seed[seed][name][method] for by_seed in figures.values()) for method in METHODS}
            for name in (RANDOM, "pretrained")
        }
        for seed in range(seeds)
    ]
    lines.append(row("mean", means))
    method = METHODS[0]
    errors = [1 - mean(one[name][method] for one in means) for name in (RANDOM, "pretrained")]
    lines.append("")
    lines.append(f"{method}: the mean of 1 - AUROC goes from {errors[0]:.3f} to {errors[1]:.3f}, "
                 f"{1 - errors[1] / errors[0]:+.0%} cut.")  # fmt: skip
    return lines


def row(name: str, by_seed: list[dict]) -> str:
    cells = []
    for method in METHODS:
        for encoder in (RANDOM, "pretrained"):
            values = [one[encoder][method] for one in by_seed]
            cells.append(f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
    return f"| {name} | " + " | ".join(cells) + " |"


def commit() -> str:
    """The commit that was measured, marked where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
