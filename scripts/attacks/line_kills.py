"""A line is killed at random moments while images come into its folder: in the end each has one signal, in its state
and in its table, and none is left in the folder."""

import csv
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

from downstream.stations.outbox import Outbox
from downstream.stations.signal import Signal
from scripts.attacks.attack import Attack, traceback_in
from scripts.attacks.material import CATEGORY, Material, Started

IMAGES, KILLS, LONGEST_S = 12, 2, 120.0


class LineKills(Attack):
    """One try is one line, killed twice before it may end."""

    unit = f"a line, killed {KILLS} times"

    def __init__(self, material: Material) -> None:
        self._material = material

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        places = {name: folder / name for name in ("in", "done", "state")}
        places["in"].mkdir()
        source = {"type": "folder", "path": str(places["in"]), "done": str(places["done"]), "settle_s": 0.02,
                  "every_s": 0.02}  # fmt: skip
        config = {"models": str(self._material.judging), "state": str(places["state"]), "threads": 1, "device": "cpu",
                  "stations": [{"name": "bolts", "budget_ms": 60_000, "source": source}],
                  "sinks": [{"type": "csv", "path": str(folder / "parts.csv")}]}  # fmt: skip
        (folder / "line.yaml").write_text(json.dumps(config))
        images = sorted((self._material.data / CATEGORY).glob("test/*/*.png"))
        names = [f"{number:03d}.png" for number in range(IMAGES)]
        said = ""
        for turn in range(KILLS + 1):
            process = Started("downstream/line.py", "--config", folder / "line.yaml")
            for name in names[turn :: KILLS + 1]:
                shutil.copy(chance.choice(images), places["in"] / f".{name}")
                (places["in"] / f".{name}").rename(places["in"] / name)
                time.sleep(chance.uniform(0, 0.2))
            if turn < KILLS:
                time.sleep(chance.uniform(0, 4))
            elif not _came(places["done"], IMAGES):
                process.kill()
                return f"{IMAGES} images were not judged in {LONGEST_S:g} s: {process.communicate()[1][-500:]}"
            (process.kill if turn < KILLS else process.terminate)()
            said += process.communicate(60)[1]
        return traceback_in(said) or unsaid(names, signals_in(places["state"]), folder / "parts.csv")


def _came(done: Path, count: int) -> bool:
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s:
        if done.is_dir() and sum(path.suffix == ".png" for path in done.rglob("*")) >= count:
            return True
        time.sleep(0.1)
    return False


def signals_in(state: Path) -> list[Signal]:
    outbox = Outbox(state)
    try:
        return outbox.last_signals(10**6)
    finally:
        outbox.close()


def unsaid(names: list[str], signals: list[Signal], table: Path) -> str | None:
    """What does not hold of the signals on the parts of these names, and of the table that they went into."""
    counts = Counter(signal.name for signal in signals)
    if counts != Counter(names):
        return f"parts have other than one signal each: {dict(counts)}"
    if faults := [signal.reason for signal in signals if signal.verdict == "fault"]:
        return f"images that lay there after the kill were not judged: {faults}"
    with open(table, newline="") as file:
        rows = {(row["id"], row["verdict"]) for row in csv.DictReader(file)}
    expected = {(signal.id, signal.verdict) for signal in signals}
    return None if rows == expected else f"the table has {len(rows)} of {len(expected)} signals"
