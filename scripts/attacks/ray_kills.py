"""Inspection and extraction of a manifest on Ray, of which processes are killed at random moments: workers, raylet,
the store of Ray's state, and the driver. In the end every image has its row or its vector, once, as without kills, and
what was finished before a kill was not made again."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from embeddings.vectors import Vectors
from pretrain.data.manifest import import_parquet, write_manifest
from pretrain.data.places import Place
from scripts.attacks.attack import Attack, traceback_in
from scripts.attacks.material import CATEGORY, Material, Started, command

IMAGES, PART_IMAGES, KILLS, LONGEST_S = 200, 4, 5, 240.0
# What is killed how often. With a raylet, or with the store of its state, the driver ends by itself.
VICTIMS = {"worker": 6, "raylet": 1, "gcs_server": 1, "driver": 2}
ENDS_WITH = {"inspection": (0, 1, 3), "extraction": (0,)}


class RayKills(Attack):
    """One try is one manifest inspected or extracted, in turn."""

    unit = f"a manifest on Ray, of which {KILLS} processes are killed"

    def __init__(self, material: Material) -> None:
        self._material, self._folder = material, material.folder / "ray"
        self._undisturbed: dict[str, list] = {}
        self.killed: list[str] = []

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        name = sorted(ENDS_WITH)[self.number % 2]
        if not self._folder.exists():
            self._make_images()
        if name not in self._undisturbed:  # in one process
            done = command(*self._words(name, self._folder / name))
            if done.returncode not in ENDS_WITH[name]:
                return f"{name} does not run at all: {done.stderr[-300:]}"
            self._undisturbed[name] = found_in(name, self._folder / name)
        out, finished, kills = folder / name, {}, KILLS
        for _ in range(KILLS + 2):  # each time but the last ones something was killed
            process = Started(*self._words(name, out), "--address", "local")
            try:
                kills, is_ended = self._attacked(process, chance, out, finished, kills)
                said = process.communicate(LONGEST_S)[1]
            finally:
                process.kill()
            if failed := traceback_in(said):
                return f"{name}: {failed}"
            # Where the raylet is killed, Ray may end its driver by itself, by 1, which inspection has for defects.
            by_ray = (1, -9) if is_ended else ()
            if process.returncode in {*ENDS_WITH[name]} - {*by_ray}:
                break
            if process.returncode not in (2, *by_ray):
                return f"{name}: exit code {process.returncode}: {said[-500:]}"
        else:
            return f"{name} does not end any more: exit code {process.returncode}: {said[-500:]}"
        return self._lost(name, out, finished)

    def _attacked(
        self, process: Started, chance: random.Random, out: Path, finished: dict, kills: int
    ) -> tuple[int, bool]:
        """Kill until that ends the driver, or as often as is left; gives how often that is, and whether it did."""
        driver = psutil.Process(process.pid)
        while kills and wait_for_workers(driver):
            time.sleep(chance.uniform(0, 2))
            finished |= times_of(out)
            victim = chance.choices([*VICTIMS], VICTIMS.values())[0]
            family = list(processes_of(driver))
            killed = driver if victim == "driver" else victim_among(family, victim, chance)
            if killed is None:
                continue
            with suppress(psutil.NoSuchProcess):
                killed.kill()
            self.killed.append(victim)
            kills -= 1
            if victim != "worker":
                # Ray's own agents, which compute nothing, take their time.
                _, left = psutil.wait_procs(
                    [driver, *(each for each in family if "Agent" not in name_of(each))], LONGEST_S
                )
                if left:
                    raise RuntimeError(f"{victim} was killed, and {[name_of(each) for each in left]} go on")
                return kills, True
        return kills, False

    def _lost(self, name: str, out: Path, finished: dict[Path, int]) -> str | None:
        """What does not hold of all that is there in the end."""
        found = found_in(name, out)
        if len(found) != len(self._undisturbed[name]):
            return f"{name}: {len(found)} of {len(self._undisturbed[name])} images"
        for ours, theirs in zip(found, self._undisturbed[name], strict=True):
            if ours[0] != theirs[0] or not np.allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-6):
                return f"{name}: {ours} where there was {theirs}"
        if again := [str(file) for file, time_ns in finished.items() if times_of(out).get(file) != time_ns]:
            return f"{name}: made again: {again}"
        if left := [str(path.relative_to(out)) for path in out.rglob(".*")]:
            return f"{name}: left {left}"
        return None

    def _make_images(self) -> None:
        """Copies of a few, under names that fall into many parts, and two files that are no images."""
        images = sorted((self._material.data / CATEGORY).glob("test/*/*.png"))
        for number in range(IMAGES):
            target = self._folder / "images" / f"{number % 3}" / f"{number:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(images[number % len(images)], target)
        for name in ("bad.png", "0/empty.png"):
            (self._folder / "images" / name).write_bytes(b"no image"[: 8 if "bad" in name else 0])
        write_manifest(Place.of(str(self._folder / "images")), self._folder / "images.parquet")

    def _words(self, name: str, out: Path) -> tuple:
        shared = (
            "--data",
            self._folder / "images.parquet",
            "--out",
            out,
            "--part-images",
            PART_IMAGES,
            "--device",
            "cpu",
        )
        if name == "inspection":
            return ("downstream/detect.py", "run", "--model", self._material.model, *shared)
        return ("embeddings/extract.py", "--encoder", self._material.encoder, "--size-px", 64, "--precision", "32-true",
                *shared)  # fmt: skip


def processes_of(driver: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield from driver.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def is_worker(process: psutil.Process) -> bool:
    """Whether it computes, now or later: Ray's own agents do not."""
    return name_of(process).startswith("ray::") and "Agent" not in name_of(process)


def wait_for_workers(driver: psutil.Process) -> bool:
    """Until Ray has started them; false where the driver has ended."""
    end_s = time.monotonic() + LONGEST_S
    while time.monotonic() < end_s and driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
        if any(map(is_worker, processes_of(driver))):
            return True
        time.sleep(0.1)
    return False


def victim_among(family: list[psutil.Process], victim: str, chance: random.Random) -> psutil.Process | None:
    """One of Ray's processes of a kind; of workers one that is at work, where there is one."""
    if victim != "worker":
        return next((each for each in family if name_of(each) == victim), None)
    workers = [each for each in family if is_worker(each)]
    busy = [each for each in workers if "IDLE" not in name_of(each)]
    return chance.choice(busy or workers) if workers else None


def times_of(out: Path) -> dict[Path, int]:
    """When what is finished was written."""
    files = [*out.glob("results/*.parquet"), *out.glob("shard-*.jsonl")]
    return {file: file.stat().st_mtime_ns for file in files}


def found_in(name: str, out: Path) -> list[tuple[str, object]]:
    """Of every image its path, and what was found: a score, or -1 for one that could not be read, or its vector."""
    if name == "extraction":
        vectors = Vectors(out)
        found = [(str(record.path), vector) for record, vector in zip(vectors.records, vectors[:], strict=True)]
    else:
        rows = [row for file in out.glob("results/*.parquet") for row in import_parquet().read_table(file).to_pylist()]
        found = [(row["path"], -1.0 if row["reason"] else row["score"]) for row in rows]
    return sorted(found, key=lambda each: each[0])
