"""A campaign against heldout itself: kills, damaged files, hostile images, made-up command lines, abuse over HTTP.

    python scripts/chaos.py --minutes 10
    python scripts/chaos.py --minutes 60 --seed 7 --parts kills,damage --record RESULTS.md
    python scripts/chaos.py --minutes 240 --tries kills=100,images=250,damage=1000,command-lines=500
    python scripts/chaos.py --minutes 120 --parts soak
    python scripts/chaos.py --minutes 60 --model models/bolt     # a copy of yours is served and damaged
    python scripts/chaos.py --seed 7 --only kills-12             # the same once more

It attacks a model, vectors, a run and a service that it makes itself, and prints how often each part was tried and
failed. What each try did follows from the seed and its number. The folder of a failure is kept, with what was seen and
the command that does it again in `what.txt`. It needs what the tests need: pip install -e '.[test]'.
"""

if __name__ == "__main__":
    import signal
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import Chaos

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # is answered as Ctrl-C is
    start("scripts.chaos:main", Chaos)

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.data.images import check_names
from pretrain.encoder import commit
from pretrain.progress import Progress
from scripts.attacks.attack import Attack
from scripts.attacks.command_lines import CommandLines
from scripts.attacks.damage import Damage
from scripts.attacks.full_disk import FullDisk, may_mount
from scripts.attacks.hostile_images import HostileImages
from scripts.attacks.http_abuse import HttpAbuse
from scripts.attacks.hub import hub_for_commands
from scripts.attacks.kills import Kills
from scripts.attacks.line_abuse import LineAbuse
from scripts.attacks.line_kills import LineKills
from scripts.attacks.lost_results import PostgresAttacks, ServiceKills
from scripts.attacks.material import make_material
from scripts.attacks.odd_options import OddOptions
from scripts.attacks.pairs import Pairs
from scripts.attacks.ray_kills import RayKills
from scripts.attacks.serving import program
from scripts.attacks.soak import Soak
from scripts.config import Chaos

PARTS = {
    "kills": Kills,
    "damage": Damage,
    "images": HostileImages,
    "command-lines": CommandLines,
    "options": OddOptions,
    "http": HttpAbuse,
    "service-kills": ServiceKills,
    "line-kills": LineKills,
    "line-http": LineAbuse,
    "postgres": PostgresAttacks,
    "full-disk": FullDisk,
    "pairs": Pairs,
    "ray": RayKills,
    "soak": Soak,
}
WHAT_FAILED = "what.txt"
SOAK_FROM_MINUTES = 240  # its share of less is too short to see growth


def main(config: Chaos) -> int:
    """Attack for the minutes there are, an equal share each part; 1 where something did not hold."""
    check_names(config.parts, PARTS, "part")
    chosen, wanted = chosen_tries(config), wanted_tries(config)
    if config.model is not None:
        if not config.model.is_dir():
            raise UserError(f"--model {config.model} is no folder: name one that detect.py fit made.")
        Inspector.load(config.model, "cpu")  # what is wrong with it is said before anything is made
    not_run = {} if chosen or config.parts else parts_without(config.minutes)
    names = list(chosen or config.parts) or [name for name in PARTS if name not in not_run]
    if lost := [name for name in wanted if name not in names]:
        why = not_run.get(lost[0], "it was not asked for")
        raise UserError(f"--tries {lost[0]}={wanted[lost[0]]}: that part is not run: {why}.")
    for kept in config.out.glob(f"*/{WHAT_FAILED}"):
        if not chosen or kept.parent.name in {f"{name}-{number}" for name in chosen for number in chosen[name]}:
            shutil.rmtree(kept.parent)
    most = (isinstance(config.tries, int) and config.tries) or sys.maxsize
    seconds = 60 * config.minutes / len(names)
    with tempfile.TemporaryDirectory() as made, hub_for_commands():
        campaign = Campaign(config, Path(made), dict.fromkeys(names, 0), {name: [] for name in names})
        os.environ["HELDOUT_CACHE"] = f"{made}/cache"
        try:
            material = make_material(campaign.folder / "material")
            if config.model is not None:
                shutil.copytree(config.model, material.given)
            for name in names:
                counted = chosen.get(name) or range(wanted.get(name, 0))
                numbers = counted or numbers_until(seconds, most)
                again = "" if chosen else part_again(name, config, seconds, wanted)
                total, unit = (len(counted), "tries") if counted else (round(seconds), "s")
                with closing(PARTS[name](material)) as attack, Progress(name, total, unit) as progress:
                    campaign.attack(attack, numbers, again, progress)
        except KeyboardInterrupt:  # of hours: what was found till then is told
            campaign.said.append("Stopped by hand before it had done all that was asked for.")
    lines = table(campaign.tries, campaign.failures, not_run)
    lines += [line for each in campaign.said for line in ("", each)]
    print("\n".join(lines))
    if config.record:
        when = f"{date.today()}, commit {commit()}\n\n"
        parts = f" --parts {','.join(config.parts)}" if config.parts else ""
        counts = f" --tries {config.tries}" if config.tries else ""
        command = f"    {campaign.command} --minutes {config.minutes:g}{counts}{parts}\n\n"
        with open(config.record, "a", encoding="utf-8") as record:
            record.write("\n## A campaign against heldout itself\n\n" + when + command + "\n".join(lines) + "\n")
    return 1 if any(campaign.failures.values()) else 0


@dataclass
class Campaign:
    """How often each part was tried, what did not hold, and what the parts have to say at their end."""

    config: Chaos
    folder: Path
    tries: dict[str, int]
    failures: dict[str, list[str]]
    said: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What makes all of its attacks follow from their numbers."""
        model = f" --model {self.config.model}" if self.config.model else ""
        return f"python scripts/chaos.py --seed {self.config.seed}{model}"

    def attack(self, attack: Attack, numbers: Iterable[int], again: str, progress: Progress) -> None:
        """A part: its tries, then what holds over all of them, which the options `again` do once more."""
        name, start_s = progress.what, time.monotonic()
        for number in numbers:
            chance, attack.number = random.Random(f"{self.config.seed} {name} {number}"), number
            tried = f"{name}-{number}"
            self._note(progress, self._tried(partial(attack.attempt, chance), tried, f"--only {tried}"))
            self.tries[name] += 1
            passed_s = min(progress.total, round(time.monotonic() - start_s))
            progress.advance(1 if progress.unit == "tries" else passed_s - progress.done)
        if again:
            self._note(progress, self._tried(attack.conclude, f"{name}-all", again))
        self.said += [attack.said] if attack.said else []

    def _note(self, progress: Progress, failed: str | None) -> None:
        if failed:
            self.failures[progress.what].append(failed)
            progress.print(failed)

    def _tried(self, attack: Callable[[Path], str | None], name: str, again: str) -> str | None:
        """One try in a folder of its own, which is kept where something did not hold, with the options that do it
        again."""
        place = self.folder / "try"
        place.mkdir()
        try:
            failed = attack(place)
        except (Exception, SystemExit) as error:
            failed = f"{type(error).__name__}: {error}"
        if failed:
            kept = self.config.out / name
            shutil.copytree(place, kept, symlinks=True, ignore=_irregular)
            (kept / WHAT_FAILED).write_text(f"{self.command} {again}\n{failed}\n")
        shutil.rmtree(place)
        return failed and f"{name}: {failed}"


def part_again(name: str, config: Chaos, seconds: float, wanted: Mapping[str, int]) -> str:
    """The options that do a whole part once more."""
    tries = f"{name}={wanted[name]}" if name in wanted else "" if wanted else config.tries
    return f"--parts {name} --minutes {seconds / 60:g}" + (f" --tries {tries}" if tries else "")


def numbers_until(seconds: float, most: int) -> Iterator[int]:
    """One try, and more until the time is over."""
    end_s = time.monotonic() + seconds
    for number in range(most):
        if number and time.monotonic() >= end_s:
            return
        yield number


def chosen_tries(config: Chaos) -> dict[str, list[int]]:
    """The numbers of the tries that are done alone, by part. Raises UserError for what is no try."""
    chosen: dict[str, list[int]] = {}
    for typed in config.only:
        name, _, number = typed.rpartition("-")
        if not (name and number.isdecimal()):
            raise UserError(f"--only {typed} is no try: give the name of a folder that a campaign left, as kills-12.")
        check_names([name], PARTS, "part")
        chosen.setdefault(name, []).append(int(number))
    return chosen


def wanted_tries(config: Chaos) -> dict[str, int]:
    """By part, where they are counted by name. Raises UserError for what is no part or no number."""
    wanted = {}
    for typed in () if isinstance(config.tries, int) else config.tries:
        name, _, count = typed.partition("=")
        check_names([name], PARTS, "part")
        if not count.isdecimal() or not int(count):
            raise UserError(f"--tries {typed} says no number of tries: give one for all, or such as kills=100,http=5.")
        wanted[name] = int(count)
    return wanted


def parts_without(minutes: float) -> dict[str, str]:
    """Those that have to be named here to be run, and why."""
    with tempfile.TemporaryDirectory() as folder:
        has_disks = may_mount(Path(folder))
    reasons = {
        "postgres": "" if program("initdb") else "PostgreSQL is not installed",
        "full-disk": "" if has_disks else "no disk can be mounted here",
        "ray": "" if find_spec("ray") else "Ray is not installed",
        "soak": "" if minutes >= SOAK_FROM_MINUTES else f"it takes {SOAK_FROM_MINUTES} minutes or more",
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _irregular(folder: str, names: list[str]) -> list[str]:
    """Pipes cannot be copied, and files of a terabyte should not be."""
    paths = [Path(folder) / name for name in names]
    return [p.name for p in paths if not p.is_symlink() and (p.is_fifo() or (p.is_file() and p.stat().st_size > 1e8))]


def table(tries: dict[str, int], failures: dict[str, list[str]], not_run: dict[str, str]) -> list[str]:
    rows = [f"| {name} | {count} | {PARTS[name].unit} | {len(failures[name])} |" for name, count in tries.items()]
    rows += [f"| {name} | not run | {reason} | |" for name, reason in not_run.items()]
    return ["| part | tries | each of them | failures |", "|---|---|---|---|", *rows]
