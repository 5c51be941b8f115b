"""What Ray costs beside the plain process, and what it gives: workers, several raylets, shards of an index.

    python scripts/benchmarks/scale.py --record RESULTS.md    # within 15 minutes on two cores
    python scripts/benchmarks/scale.py --quick                # a minute

Extraction and inspection are the commands as they are, on a manifest of demo images of 256 px, by a ResNet-18 that sees
32 px, so that what Ray adds to an image weighs much. Every process has one thread. A turn begins with Ray started and
its workers at work; what that takes is stated apart, since it is the same for a million images. Several raylets, each
with one worker, an object store and a scheduler of its own, stand in for several machines; no network lies between.

The driver's memory is that of the process that inspects a manifest of images that are not there: all that depends on
the number of rows happens. Search compares an index of a million vectors in one shard with several shards, here and
each in an actor of Ray, which has one thread; in this process there are as many as cores. Memory is what is neither of
files nor shared; of an actor, with Python and its libraries.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Scale

    start("scripts.benchmarks.scale:main", Scale)

import contextlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import faiss
import numpy as np
import psutil
import torch
from PIL import Image

from downstream.inspection.config import Fit, Run
from downstream.inspection.manifest.fit import fit
from downstream.inspection.manifest.run import run
from embeddings.config import Extract
from embeddings.extract import extract
from embeddings.index import Index
from embeddings.index.kinds import breadth_name
from pretrain.actors import HeldHere, Hold, objects_at
from pretrain.command import UserError
from pretrain.data.manifest import COLUMNS, PLACE, import_parquet
from pretrain.data.places import Place
from pretrain.demo import render_image
from pretrain.encoder import make_encoder
from pretrain.files import link_or_copy
from pretrain.tasks import LOCAL, STORE_BYTES, Spread, importable_by_workers, ray_module
from scripts.benchmarks.config import Scale
from scripts.benchmarks.rounds import Memory, finish, in_rounds, seconds_of

SIZE_PX, PART_IMAGES, DRAWN = 32, 64, 200
# Raylets of a contestant, and workers of each; none is the plain process.
CONTESTANTS = {
    "one process": (0, 1),
    "1 worker": (1, 1),
    "2 workers": (1, 2),
    "4 workers": (1, 4),
    "2 raylets": (2, 1),
    "4 raylets": (4, 1),
}
PLAIN, QUICK_CONTESTANTS = ("one process", "1 worker"), ("one process", "1 worker", "2 raylets")
DIMENSIONS, QUERIES, K, ALONE = 64, 500, 10, 20
KINDS = ("flat", "ivf")
AT_MOST = {"overhead": 0.10, "driver_growth": 1.2}
AT_LEAST = {"same_neighbors": 1.0}


class Turn(NamedTuple):
    """Seconds until Ray works, of extraction, and of inspection."""

    start_s: float
    extract_s: float
    inspect_s: float


def main(config: Scale) -> int:
    torch.set_num_threads(1)
    figures, lines = {}, [f"{os.cpu_count()} cores"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        quick = config.quick
        images, rounds = (200, 1) if quick else (config.images, config.rounds)
        rows = (1000, 4000) if quick else rows_of(config.rows)
        contestants = QUICK_CONTESTANTS if quick else tuple(CONTESTANTS)
        for part in (
            lambda: throughput(images_of(config.out, images), folder, images, rounds, contestants),
            lambda: driver_memory(rows, folder),
            lambda: alone(search, 20_000 if quick else config.vectors, config.shards, rounds, folder),
        ):
            more_figures, more_lines = part()
            figures, lines = figures | more_figures, lines + more_lines
    packages = ("ray", "faiss-gpu", "torch", "pyarrow")
    return finish("scale", config, lines, figures, at_least=AT_LEAST, at_most=AT_MOST, packages=packages)


def rows_of(typed: Sequence[str]) -> tuple[int, ...]:
    """At least two numbers of rows, since the driver's memory is compared between them. Raises UserError."""
    if len(typed) < 2 or not all(each.isdecimal() and int(each) for each in typed):
        raise UserError(f"--rows {','.join(typed)} are no numbers of rows: give two or more, such as 10000,1000000.")
    return tuple(map(int, typed))


def alone(part: object, *arguments: object) -> tuple[dict, list[str]]:
    """In a process of its own, so that the memory it takes is known."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


@contextmanager
def cluster(raylets: int, workers: int) -> Iterator[None]:
    """Ray with so many raylets of so many workers, which every command of this process finds."""
    ray = ray_module(LOCAL)
    if not raylets:
        yield
        return
    node = {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    told = {"logging_level": logging.ERROR, "log_to_driver": False}
    with importable_by_workers():
        if raylets == 1:
            started = None
            ray.init(LOCAL, **node, **told)
        else:
            started = import_module("ray.cluster_utils").Cluster()
            for _ in range(raylets):
                started.add_node(**node)
            ray.init(started.address, **told)
    try:
        yield
    finally:
        ray.shutdown()
        if started:
            started.shutdown()


def images_of(out: Path, count: int) -> Path:
    """A folder of so many PNGs of a product: some are drawn, the rest are links to them."""
    folder = out / f"images-{count}"
    if not folder.exists():
        unfinished = folder.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for number in range(count):
            path = unfinished / f"{number:05d}.png"
            if number < DRAWN:
                Image.fromarray(render_image("hazelnut", "train", "good", number, 0)[0]).save(path)
            else:
                link_or_copy(unfinished / f"{number % DRAWN:05d}.png", path)
        unfinished.rename(folder)
    return folder


def throughput(
    images: Path, folder: Path, count: int, rounds: int, contestants: Sequence[str]
) -> tuple[dict, list[str]]:
    """Images a second of the plain process and of Ray's workers."""
    encoder = folder / "encoder.safetensors"
    make_encoder("resnet18").save(encoder)
    manifests = {}
    for name, listed in (("few", 4 * PART_IMAGES), ("quarter", count // 4), ("all", count)):
        manifests[name] = manifest_of(sorted(images.iterdir())[:listed], images, folder / f"{name}.parquet")
    model = folder / "model"
    with silence():
        fit(Fit(data=manifests["few"], out=model, method="padim", encoder=encoder, size_px=SIZE_PX, device="cpu",
                options="dimensions=64,grid=4"))  # fmt: skip
    counts = {name: count if name in PLAIN else count // 4 for name in contestants}
    turns = in_rounds(
        rounds,
        {
            name: partial(turn, *CONTESTANTS[name], manifests["few"], encoder, model, folder,
                          manifests["all" if name in PLAIN else "quarter"])
            for name in contestants
        },
        warm_up=False,
    )  # fmt: skip
    plain, ray = (turns[name] for name in PLAIN)
    overheads = {
        step: median(ours / theirs for ours, theirs in zip(seconds(ray, step), seconds(plain, step), strict=True)) - 1
        for step in ("extract_s", "inspect_s")
    }
    figures = {
        "overhead": max(overheads.values()),
        **{f"overhead_{step.removesuffix('_s')}": value for step, value in overheads.items()},
        "images": count,
    }
    lines = [f"PNGs of 256 px, ResNet-18 at {SIZE_PX} px, medians of {rounds} interleaved rounds"]
    for name, of_each in turns.items():
        rates = [counts[name] / median(seconds(of_each, step)) for step in ("extract_s", "inspect_s")]
        start_s = median(seconds(of_each, "start_s"))
        figures |= {f"{name} extracted/s": rates[0], f"{name} inspected/s": rates[1], f"{name} start s": start_s}
        lines.append(f"  {name:12} {counts[name]:6} images: {rates[0]:7.1f}/s extracted, {rates[1]:7.1f}/s inspected, "
                     f"after {start_s:.1f} s to begin")  # fmt: skip
    lines.append(f"  one worker of Ray beside one process: {overheads['extract_s']:+.1%} time for extraction, "
                 f"{overheads['inspect_s']:+.1%} for inspection")  # fmt: skip
    return figures, lines


def seconds(turns: list[Turn], step: str) -> list[float]:
    return [getattr(each, step) for each in turns]


def manifest_of(paths: list[Path], images: Path, file: Path) -> Path:
    """A manifest of some of the images in a folder."""
    rows = {"path": [path.name for path in paths], "size": [path.stat().st_size for path in paths],
            "version": [""] * len(paths)}  # fmt: skip
    return write_rows(rows, images, file)


def write_rows(rows: dict[str, list], images: Path, file: Path) -> Path:
    arrow = import_module("pyarrow")
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in COLUMNS.items()],
                          metadata={PLACE: Place.of(str(images)).url})  # fmt: skip
    import_parquet().write_table(arrow.table(rows, schema=schema), file, row_group_size=2**15)
    return file


def turn(raylets: int, workers: int, few: Path, encoder: Path, model: Path, folder: Path, manifest: Path) -> Turn:
    """One contestant: a few images to start all workers, then both commands."""
    address = LOCAL if raylets else None
    started_s = time.perf_counter()
    with cluster(raylets, workers), silence():
        extract_into(folder / "vectors", few, encoder, address)
        inspect_into(folder / "results", few, model, address)
        start_s = time.perf_counter() - started_s
        return Turn(
            start_s,
            seconds_of(lambda: extract_into(folder / "vectors", manifest, encoder, address)),
            seconds_of(lambda: inspect_into(folder / "results", manifest, model, address)),
        )


def extract_into(out: Path, manifest: Path, encoder: Path, address: str | None) -> None:
    shutil.rmtree(out, ignore_errors=True)
    extract(Extract(data=manifest, encoder=encoder, out=out, size_px=SIZE_PX, precision="32-true", device="cpu",
                    part_images=PART_IMAGES, address=address))  # fmt: skip


def inspect_into(out: Path, manifest: Path, model: Path, address: str | None) -> None:
    shutil.rmtree(out, ignore_errors=True)
    run(Run(data=str(manifest), out=str(out), overlays="none", device="cpu", part_images=PART_IMAGES, address=address),
        model)  # fmt: skip


@contextmanager
def silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def driver_memory(row_counts: tuple[int, ...], folder: Path) -> tuple[dict, list[str]]:
    """Peak memory of the process that inspects manifests, by their rows."""
    nowhere = folder / "nowhere"
    nowhere.mkdir()
    peaks, lines = [], ["memory of the process that inspects, images not there"]
    for count in row_counts:
        names = {"path": [f"{number // 1000:06d}/{number:09d}.png" for number in range(count)],
                 "size": [100_000] * count, "version": ["1700000000"] * count}  # fmt: skip
        file = write_rows(names, nowhere, folder / f"rows-{count}.parquet")
        peak_mib, spent_s = alone(inspection_memory, file, folder / "model", folder / "rows")
        peaks.append(peak_mib)
        lines.append(f"  {count:9} rows {peak_mib:7.0f} MiB, {spent_s:6.1f} s")
    growth = peaks[-1] / peaks[0]
    return {"driver_rows": row_counts, "driver_peak_mib": peaks, "driver_growth": growth}, lines


def inspection_memory(manifest: Path, model: Path, out: Path) -> tuple[float, float]:
    """Peak MiB and seconds of one inspection by two workers."""
    with cluster(1, 2), silence(), Memory() as memory:
        shutil.rmtree(out, ignore_errors=True)
        asked = Run(data=str(manifest), out=str(out), device="cpu", part_images=8 * PART_IMAGES, address=LOCAL)
        spent_s = seconds_of(lambda: run(asked, model))
    return memory.peak_mib, spent_s


def search(count: int, shards: int, rounds: int, folder: Path) -> tuple[dict, list[str]]:
    """One index beside shards of it, here and on Ray: what they find, time and memory."""
    cores = os.cpu_count() or 1
    faiss.omp_set_num_threads(cores)
    vectors, queries = clustered(count, folder / "vectors.f32"), clustered(QUERIES, folder / "queries.f32", seed=1)
    lines = [f"{count} vectors of {DIMENSIONS} dimensions, {len(queries)} queries at once, their {K} nearest"]
    figures, same = {}, []
    with cluster(1, cores), objects_at(Spread(address=LOCAL)) as on_ray:
        for kind in KINDS:
            built = {
                "one index": partial(build, vectors, kind, 1, HeldHere),
                f"{shards} shards here": partial(build, vectors, kind, shards, HeldHere),
                f"{shards} shards on Ray": partial(build, vectors, kind, shards, on_ray),
            }
            built = {name: made() for name, made in built.items()}
            indexes = {name: each.index for name, each in built.items()}
            found = {name: index.search(queries, K) for name, index in indexes.items()}
            batch = in_rounds(rounds, {name: partial(batch_s, index, queries) for name, index in indexes.items()})
            single = in_rounds(rounds, {name: partial(alone_s, index, queries) for name, index in indexes.items()})
            one = found["one index"]
            for name, index in indexes.items():
                share = float((found[name].ids == one.ids).mean())
                same += [share] if kind == "flat" else []  # where search is exact, it is to be exactly so
                figures |= {
                    f"{kind}, {name}, queries/s": len(queries) / median(batch[name]),
                    f"{kind}, {name}, ms alone": 1e3 * median(single[name]) / ALONE,
                    f"{kind}, {name}, MiB": built[name].mib,
                    f"{kind}, {name}, build s": built[name].seconds,
                    f"{kind}, {name}, same": share,
                }
                breadth = f", {breadth_name(kind)} {index.nprobe}" if index.recall else ""
                lines.append(
                    f"  {kind + breadth:16} {name:16} {len(queries) / median(batch[name]):8.0f} queries/s, "
                    f"{1e3 * median(single[name]) / ALONE:7.2f} ms alone; {share:.2%} of the neighbors; built in "
                    f"{built[name].seconds:.1f} s; {built[name].mib}"
                )
            del built, indexes, found
    return {**figures, "same_neighbors": min(same)}, lines


class Built(NamedTuple):
    """An index, seconds to build it, and MiB that it takes in each process that holds some of it."""

    index: Index
    seconds: float
    mib: str


def build(vectors: np.ndarray, kind: str, shards: int, hold: Hold) -> Built:
    before = memory_of_holders(hold)
    start_s = time.perf_counter()
    index = Index.build(vectors, metric="l2", kind=kind, shards=shards, hold=hold)
    spent_s = time.perf_counter() - start_s
    grown = [after - before.get(pid, 0) for pid, after in memory_of_holders(hold).items()]
    return Built(index, spent_s, f"{sum(grown):.0f} MiB, at most {max(grown):.0f} a process")


def memory_of_holders(hold: Hold) -> dict[int, float]:
    """MiB of this process, or of the actors that hold shards."""
    found = [psutil.Process()]
    if hold is not HeldHere:
        found = [each for each in found[0].children(recursive=True) if each.name().startswith("ray::Holder")]
    return {process.pid: (process.memory_info().rss - process.memory_info().shared) / 2**20 for process in found}


def batch_s(index: Index, queries: np.ndarray) -> float:
    return seconds_of(lambda: index.search(queries, K))


def alone_s(index: Index, queries: np.ndarray) -> float:
    return seconds_of(lambda: [index.search(query[None], K) for query in queries[:ALONE]])


def clustered(count: int, file: Path, seed: int = 0) -> np.ndarray:
    """Vectors as features are, around some centers: float32 (count, DIMENSIONS), on disk."""
    centers = np.random.default_rng(7).normal(size=(1000, DIMENSIONS)).astype(np.float32)
    generator = np.random.default_rng(seed)
    with open(file, "wb") as opened:
        for start in range(0, count, 2**16):
            size = min(2**16, count - start)
            noise = generator.normal(0, 0.5, (size, DIMENSIONS)).astype(np.float32)
            opened.write((centers[generator.integers(len(centers), size=size)] + noise).tobytes())
    return np.memmap(file, np.float32, "r").reshape(-1, DIMENSIONS)
