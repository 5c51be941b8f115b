"""Leave categories out: pretrain on the others, and evaluate on them beside random weights and the start.

    python scripts/leave_one_out.py --data data/mvtec --seeds 0,1,2 --record RESULTS.md

Runs `pretrain/simclr.py` for every category and seed, then one `downstream/evaluate.py --protocol leave-one-out`, which
takes for each category the encoders that did not see it. The same command resumes where it was stopped.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import LeaveOneOut

    start("scripts.leave_one_out:main", LeaveOneOut)

import shlex
import subprocess
import sys
from pathlib import Path

from pretrain.command import Names, UserError
from pretrain.data.images import check_names
from pretrain.data.layouts import category_folders
from scripts.config import LeaveOneOut

REPOSITORY = Path(__file__).resolve().parents[1]


def main(config: LeaveOneOut) -> None:
    """Pretrain every encoder, then evaluate them all."""
    available = category_folders(config.data, config.layout)
    if len(available) < 2:
        raise UserError(f"{config.data} has one category: with it left out there is nothing to learn from.")
    groups = [Names(group) for group in config.groups.split(";") if group]
    groups = groups or [Names(name) for name in config.categories or sorted(available)]
    left_out = [name for group in groups for name in group]
    check_names(left_out, available, f"category in {config.data}")
    layout = ["--layout", config.layout] if config.layout else []
    encoders = []
    for seed in config.seeds:
        for group in groups:
            run = config.out / f"without-{'-'.join(group)}-seed-{seed}"
            print(f"without {group}, seed {seed}: {run}", file=sys.stderr, flush=True)
            # What the training made of its start is to be judged, also where the monitor would keep the start.
            options = ["--data", config.data, "--hold-out", group, "--seed", seed, "--out", run, *layout]
            call("pretrain/simclr.py", *options, "--keep", "last", *shlex.split(config.pretrain))
            encoders.append(run / "encoder.safetensors")
    # Seed number s of a study takes encoder number s of those that did not see the category: each is used once.
    seeds = ",".join(str(number) for number in range(len(config.seeds)))
    options = ["--protocol", "leave-one-out", "--data", config.data, "--test", Names(left_out), "--seeds", seeds]
    options += ["--encoder", ",".join(map(str, encoders)), "--methods", config.methods, "--out", config.out / "study"]
    options += layout
    if config.record:
        options += ["--record", config.record, "--heading", config.heading]
    call("downstream/evaluate.py", *options, *shlex.split(config.evaluate))


def call(script: str, *arguments: object) -> None:
    """Run one of our commands. Raises UserError if it fails, with its own words above."""
    done = subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=False)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}; the same command resumes from there.")
