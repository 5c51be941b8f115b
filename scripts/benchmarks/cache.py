"""How fast the cache is built and read, beside the bare decoder, and how much memory that takes.

    python scripts/benchmarks/cache.py            # some minutes; makes its own 1024 px PNGs in a temporary folder
    python scripts/benchmarks/cache.py --quick    # within a minute, on fewer images
    python scripts/benchmarks/cache.py --check    # exit code 1 where a target is missed

Targets: building at 90 % or more of the bare decoder's rate on all cores, both from the start of the first process to
the end of the last; peak memory the same for ten times the images; reading a random batch at least 50 times as fast
as decoding it. Beside rates stands the processors' time, which tells more where others use the machine too. The last
line is one JSON object.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Cache

    start("scripts.benchmarks.cache:main", Cache)

import contextlib
import io
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from pretrain.data.cache import cache_root, open_cached
from pretrain.demo import CATEGORIES, render_image
from scripts.benchmarks.config import Cache
from scripts.benchmarks.contestants.bare_decoder import decode_only
from scripts.benchmarks.rounds import finish, in_rounds

BATCH = 256
AT_LEAST = {"build_over_bare": 0.9, "build_over_bare_times_4": 0.9, "read_over_decode": 50.0}
AT_MOST = {"peak_growth": 1.1}


def main(config: Cache) -> int:
    count, rounds = (150, 3) if config.quick else (config.images, config.rounds)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HELDOUT_CACHE"] = f"{folder}/cache"
        paths = make_images(Path(folder) / "images", count)
        more = linked(paths, Path(folder) / "times_4", 4)
        building = medians(
            rounds,
            {
                "bare_times_4": partial(bare, more),
                "build_times_4": partial(build, more, config.size_px),
                "bare": partial(bare, paths),
                "build": partial(build, paths, config.size_px),
            },
        )
        reading = medians(rounds, reading_a_batch(paths, config.size_px))
        peaks_mib = [peak_mib(Path(folder), paths, factor, config.size_px) for factor in (1, 10)]
    figures = {
        **build_figures(building["bare"], building["build"], count, ""),
        **build_figures(building["bare_times_4"], building["build_times_4"], 4 * count, "_times_4"),
        "decode_batch_ms": 1e3 * reading["decode"].wall_s,
        "read_batch_ms": 1e3 * reading["read"].wall_s,
        "read_over_decode": reading["decode"].wall_s / reading["read"].wall_s,
        "peak_mib": peaks_mib,
        "peak_growth": peaks_mib[1] / peaks_mib[0],
    }
    lines = [
        f"{count} PNGs of 1024 px, cached at {config.size_px} px, medians of {rounds} interleaved rounds",
        "  the bare decoder: the same, in as many new processes, its result thrown away",
        *building_lines(figures, count, ""),
        *building_lines(figures, 4 * count, "_times_4"),
        f"  read       {figures['read_batch_ms']:8.1f} ms for a random batch of {min(BATCH, count)}",
        f"  decode     {figures['decode_batch_ms']:8.1f} ms for the same batch, all cores",
        f"  peak       {peaks_mib[0]:8.0f} MiB for {count} images, all processes together",
        f"             {peaks_mib[1]:8.0f} MiB for {10 * count}",
    ]
    packages = ("kornia-rs", "pillow", "numpy")
    return finish("cache", config, lines, figures, at_least=AT_LEAST, at_most=AT_MOST, packages=packages)


class Spent(NamedTuple):
    """Seconds by the clock, and of processors, in this process and in those that ended meanwhile."""

    wall_s: float
    cpu_s: float


def spent_on(work: Callable[[], object]) -> Spent:
    wall_s, cpu_s = time.perf_counter(), sum(os.times()[:4])
    work()
    return Spent(time.perf_counter() - wall_s, sum(os.times()[:4]) - cpu_s)


def build_figures(bare: Spent, build: Spent, count: int, times: str) -> dict[str, float]:
    return {
        f"bare_decoder_images_per_s{times}": count / bare.wall_s,
        f"build_images_per_s{times}": count / build.wall_s,
        f"build_over_bare{times}": bare.wall_s / build.wall_s,
        f"bare_decoder_cpu_ms{times}": 1e3 * bare.cpu_s / count,
        f"build_cpu_ms{times}": 1e3 * build.cpu_s / count,
        f"cpu_build_over_bare{times}": bare.cpu_s / build.cpu_s,
    }


def building_lines(figures: dict[str, float], count: int, times: str) -> list[str]:
    lines = []
    for label, name in (("build", "build"), ("bare", "bare_decoder")):
        rate, cpu_ms = figures[f"{name}_images_per_s{times}"], figures[f"{name}_cpu_ms{times}"]
        lines.append(f"  {label:<10} {rate:8.0f} images/s of {count}, {cpu_ms:.2f} CPU ms each")
    return [*lines, f"  CPU ratio  {figures[f'cpu_build_over_bare{times}']:8.2f}"]


def medians(rounds: int, contestants: dict[str, Callable[[], Spent]]) -> dict[str, Spent]:
    """Nothing is warmed up: starting the processes is part of building."""
    measured = in_rounds(rounds, contestants, warm_up=False)
    return {name: Spent(*map(median, zip(*spent, strict=True))) for name, spent in measured.items()}


def make_images(folder: Path, count: int, size_px: int = 1024) -> list[Path]:
    """PNGs with the grain of real ones: the demo set's, enlarged, with sensor noise; fifteen, repeated."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    originals = []
    for category in CATEGORIES:
        pixels, _ = render_image(category, "train", "good", 0, 0)
        large = np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BICUBIC), np.float32)
        noisy = large + generator.normal(0, 2, large.shape)
        original = folder / f"original_{category}.png"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(original)
        originals.append(original.read_bytes())
        original.unlink()
    paths = [folder / f"{number:05d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(originals[number % len(originals)])
    return paths


def linked(paths: list[Path], folder: Path, factor: int) -> list[Path]:
    """A folder of `factor` times the images, by hard links."""
    folder.mkdir()
    links = [folder / f"{turn}_{path.name}" for turn in range(factor) for path in paths]
    for link, path in zip(links, paths * factor, strict=True):
        os.link(path, link)
    return links


def bare(paths: list[Path]) -> Spent:
    """Start a process for each core, decode all with the same decoder, and nothing else."""

    def decode_all() -> None:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            for _ in pool.map(decode_only, paths, chunksize=4):
                pass

    return spent_on(decode_all)


def build(paths: list[Path], size_px: int) -> Spent:
    """Build the cache of all from nothing."""
    shutil.rmtree(cache_root(), ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        return spent_on(partial(open_cached, paths[0].parent, paths, size_px))


def reading_a_batch(paths: list[Path], size_px: int) -> dict[str, Callable[[], Spent]]:
    """Read a random batch from the cache; decode the same batch in a pool that is already running."""
    cached = open_cached(paths[0].parent, paths, size_px)
    rows = np.array([cached.entries[path].row for path in paths])
    generator = np.random.default_rng(0)
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
    list(pool.map(decode_only, paths[:8]))

    def positions() -> np.ndarray:
        return generator.choice(len(paths), min(BATCH, len(paths)), replace=False)

    def read() -> Spent:
        batch = rows[positions()]
        return spent_on(lambda: cached.pixels[batch])

    def decode() -> Spent:
        batch = [paths[position] for position in positions()]
        return spent_on(lambda: list(pool.map(decode_only, batch, chunksize=4)))

    return {"read": read, "decode": decode}


def peak_mib(parent: Path, paths: list[Path], factor: int, size_px: int) -> float:
    """Peak resident memory of building a cache of `factor` times the images (by hard links), in a process of its
    own: of that process, and of the largest of its decoders for each core."""
    folder = parent / f"memory_times_{factor}"
    linked(paths, folder, factor)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_of_build, folder, size_px).result()


def peak_of_build(folder: Path, size_px: int) -> float:
    build(sorted(folder.iterdir()), size_px)
    # getrusage's own figure would start at that of the process that started this one.
    (own_kib,) = (
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    largest_child_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own_kib + (os.cpu_count() or 1) * largest_child_kib) / 1024
