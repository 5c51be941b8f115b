"""How fast search is beside faiss's own exact index and scikit-learn, and extraction beside the bare encoder.

    python scripts/benchmarks/search.py --encoder FILE    # 1 million patch vectors; keeps them in runs/benchmark_search
    python scripts/benchmarks/search.py --quick           # a minute: 10 thousand vectors and few images
    python scripts/benchmarks/search.py --check           # exit code 1 where a target is missed

The vectors are patches of the demo images, levels 2 and 3 of the encoder, 256 of their 384 dimensions; queries are
patches of images that are not in the index. All search the same vectors for the same queries in one batch, in turn,
for their 10 nearest by Euclidean distance; recall is that of these queries, which no index was tuned on.

Targets at 1 million: 10 times the throughput of faiss's exact index at recall 0.95. Extraction: 90 % of the rate of the
bare encoder on the same cached images, and the same peak memory for four times the images.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Search

    start("scripts.benchmarks.search:main", Search)

import contextlib
import io
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from sklearn.neighbors import NearestNeighbors

from embeddings.config import Extract
from embeddings.encoding import Encoding, choose_encoder, make_source
from embeddings.extract import extract
from embeddings.index import Index
from embeddings.index.exact import exact_distances
from embeddings.index.kinds import breadth_name
from embeddings.vectors import Vectors
from pretrain.data.dataset import ImageSet, load
from pretrain.demo import is_demo, make
from scripts.benchmarks.config import Search
from scripts.benchmarks.rounds import Memory, finish, in_rounds, seconds_of, speedup

K, QUERIES = 10, 500
SIZE_PX, DIMENSIONS = 224, 256
MILLION = 1_000_000
RANKED_AGAIN = 100  # of what codes find, by the vectors themselves, which stay on disk
AT_LEAST = {"extract_over_bare": 0.9}
AT_MOST = {"extract_peak_growth": 1.1}
AT_LEAST_OF_A_MILLION = {"over_exact_1000000": 10.0, "recall_1000000": 0.95}


def main(config: Search) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        data, out, sizes, rounds, images = config.data, config.out, config.sizes, config.rounds, config.images
        if config.quick:
            data, out, sizes, rounds, images = Path(temporary) / "demo", Path(temporary) / "out", ("10000",), 2, 48
            make(data, categories=("bottle", "hazelnut", "leather"), train=20, good=2, defective=1)
        elif not data.exists() or (not any(data.iterdir()) and not is_demo(data)):
            make(data)
        figures, lines = extraction(data, config.encoder, images, rounds, Path(temporary))
        known, queries = patch_vectors(data, config.encoder, out)
        for size in map(int, sizes):
            # In a process of its own, so that the memory it takes is known.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                more_figures, more_lines = pool.submit(searches, known, queries, size, rounds, Path(temporary)).result()
            figures, lines = figures | more_figures, lines + more_lines
    at_least = AT_LEAST | (AT_LEAST_OF_A_MILLION if str(MILLION) in sizes else {})
    packages = ("faiss-gpu", "scikit-learn", "torch", "numpy")
    return finish("search", config, lines, figures, at_least=at_least, at_most=AT_MOST, packages=packages)


def extraction(data: Path, encoder: Path | None, count: int, rounds: int, folder: Path) -> tuple[dict, list[str]]:
    """Images a second of the whole of `extract` and of the encoder alone, on cached images, both in fp32."""
    chosen, path = choose_encoder(encoder, 0, is_demo=True)
    images = load(data, SIZE_PX)
    few = link_images(images, np.linspace(0, len(images) - 1, count).astype(int), folder / "few")
    encoding = Encoding(chosen, make_source(chosen, "pooled", size_px=SIZE_PX))
    batches = [images.batch(range(start, min(start + 32, count))) for start in range(0, count, 32)]

    def bare() -> float:
        return seconds_of(lambda: [encoding.vectors(batch) for batch in batches])

    seconds = in_rounds(rounds, {"bare": bare, "extract": partial(extract_once, few, path, folder / "extracted")})
    many = link_images(images, np.arange(4 * count) % len(images), folder / "many")
    peaks_mib = []
    for images_folder in (few, many):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            vectors_folder = folder / f"{images_folder.name}-vectors"
            peaks_mib.append(pool.submit(extraction_peak_mib, images_folder, path, vectors_folder).result())
    bare_s, extract_s = median(seconds["bare"]), median(seconds["extract"])
    figures = {
        "bare_images_per_s": count / bare_s,
        "extract_images_per_s": count / extract_s,
        "extract_over_bare": speedup(seconds["extract"], seconds["bare"]),
        "extract_peak_mib": peaks_mib,
        "extract_peak_growth": peaks_mib[1] / peaks_mib[0],
    }
    return figures, [
        f"{count} cached images of {SIZE_PX} px, {chosen.architecture}, fp32, medians of {rounds} interleaved rounds",
        f"  bare encoder      {count / bare_s:9.1f} images/s, from memory",
        f"  extract           {count / extract_s:9.1f} images/s, from the first line to the last",
        f"  peak memory       {peaks_mib[0]:9.0f} MiB for {count} images, {peaks_mib[1]:.0f} for {4 * count}",
    ]


def link_images(images: ImageSet, positions: np.ndarray, folder: Path) -> Path:
    """A plain folder of some of the images; one that is asked for twice is there twice."""
    folder.mkdir()
    for number, position in enumerate(positions):
        source = images.records[position].path
        os.symlink(source.resolve(), folder / f"{number:05d}{source.suffix}")
    return folder


def extract_once(folder: Path, encoder: Path, out: Path) -> float:
    """Seconds of one extraction into a new folder, its images cached."""
    shutil.rmtree(out, ignore_errors=True)
    with contextlib.redirect_stderr(io.StringIO()):
        load(folder, SIZE_PX, allow_plain=True)
        asked = Extract(data=folder, encoder=encoder, out=out, size_px=SIZE_PX, precision="32-true")
        return seconds_of(partial(extract, asked))


def extraction_peak_mib(folder: Path, encoder: Path, out: Path) -> float:
    with Memory() as memory:
        extract_once(folder, encoder, out)
    return memory.peak_mib


def patch_vectors(data: Path, encoder: Path | None, out: Path) -> tuple[Path, Path]:
    """Files of patch vectors to search, float32 rows in random order of images, and of queries from others."""
    _, path = choose_encoder(encoder, 0, is_demo=True)
    asked = Extract(data=data, encoder=path, out=out / "vectors", form="patches", size_px=SIZE_PX,
                       dimensions=DIMENSIONS)  # fmt: skip
    vectors = Vectors(extract(asked))
    generator = np.random.default_rng(0)
    order = generator.permutation(len(vectors.records))
    needed = min(-(-MILLION // vectors.per_image), round(0.9 * len(order)))
    known, others = order[:needed], order[needed:]
    files = out / "known.f32", out / "queries.f32"
    with open(files[0], "wb") as file:
        for position in known:
            file.write(vectors.of_images([position]).tobytes())
    candidates = vectors.of_images(others[:100]).reshape(-1, DIMENSIONS)
    queries = candidates[generator.choice(len(candidates), QUERIES, replace=False)]
    files[1].write_bytes(queries.tobytes())
    return files


def searches(known: Path, queries_file: Path, size: int, rounds: int, folder: Path) -> tuple[dict, list[str]]:
    """Figures of all contestants on the first `size` vectors."""
    stored = np.memmap(known, np.float32, "r").reshape(-1, DIMENSIONS)[:size]
    queries = np.fromfile(queries_file, np.float32).reshape(-1, DIMENSIONS)
    lines = [f"{size} patch vectors of {DIMENSIONS} dimensions, {len(queries)} queries at once, their {K} nearest"]
    kinds = ["auto", *(["hnsw"] if size > 50_000 else []), *(["ivfpq"] if size == MILLION else [])]
    built: dict[str, Index] = {}
    figures: dict[str, float] = {}
    for kind in kinds:
        with Memory() as memory:
            start_s = time.perf_counter()
            index = Index.build(stored, metric="l2", kind=kind)
            build_s = time.perf_counter() - start_s
        index.save(folder / f"index-{size}-{kind}")
        figures |= {
            f"{kind}_build_s_{size}": build_s,
            f"{kind}_build_peak_mib_{size}": memory.peak_mib - memory.before_mib,
            f"{kind}_mib_{size}": sum(f.stat().st_size for f in (folder / f"index-{size}-{kind}").iterdir()) / 2**20,
        }
        if index.recall:
            figures[f"{kind}_{breadth_name(index.spec.kind)}_{size}"] = index.nprobe or index.ef_search
        built[kind] = index
    exact = faiss.IndexFlatL2(DIMENSIONS)
    exact.add(np.ascontiguousarray(stored))
    shared = faiss.rev_swig_ptr(exact.get_xb(), size * DIMENSIONS).reshape(size, DIMENSIONS)  # no copy for scikit-learn
    neighbors = NearestNeighbors(n_neighbors=K, algorithm="brute", n_jobs=-1).fit(shared)
    contestants = {
        "exact": partial(seconds_of, lambda: exact.search(queries, K)),
        "sklearn": partial(seconds_of, lambda: neighbors.kneighbors(queries)),
        **{kind: partial(seconds_of, partial(index.search, queries, K)) for kind, index in built.items()},
    }
    if "ivfpq" in built:
        contestants["again"] = partial(seconds_of, lambda: ranked_again(built["ivfpq"], stored, queries))
    seconds = in_rounds(rounds, contestants)
    alone = in_rounds(rounds, {
        "exact": partial(seconds_of, lambda: [exact.search(query[None], K) for query in queries[:20]]),
        **{kind: partial(seconds_of, partial(one_by_one, index, queries[:20])) for kind, index in built.items()},
    })  # fmt: skip
    truth = exact_reach(shared, exact.search(queries, K)[1], queries)
    for name, spent_s in {name: median(each) for name, each in seconds.items()}.items():
        figures[f"{name}_queries_per_s_{size}"] = len(queries) / spent_s
        line = f"  {names(name, built):28} {len(queries) / spent_s:9.0f} queries/s"
        if name in alone:
            figures[f"{name}_single_ms_{size}"] = 50 * median(alone[name])
            line += f", {50 * median(alone[name]):7.2f} ms for one alone"
        if name == "again":
            rows = ranked_again(built["ivfpq"], stored, queries)
            figures[f"again_recall_{size}"] = float((true_distances(shared, rows, queries) <= truth).mean())
            line += f", recall {figures[f'again_recall_{size}']:.3f}"
        if name in built:
            nearest = built[name].search(queries, K)
            recall = float((true_distances(shared, nearest.ids, queries) <= truth).mean())
            figures[f"{name}_recall_{size}"] = recall
            line += (f", recall {recall:.3f}; built in {figures[f'{name}_build_s_{size}']:.1f} s, "
                     f"in {figures[f'{name}_build_peak_mib_{size}']:.0f} MiB, "
                     f"{figures[f'{name}_mib_{size}']:.0f} MiB on disk")  # fmt: skip
        lines.append(line)
    figures[f"over_exact_{size}"] = speedup(seconds["auto"], seconds["exact"])
    figures[f"over_sklearn_{size}"] = speedup(seconds["auto"], seconds["sklearn"])
    figures[f"recall_{size}"] = figures[f"auto_recall_{size}"]
    lines += [
        f"  ours over faiss's exact      {figures[f'over_exact_{size}']:9.1f}",
        f"  ours over scikit-learn       {figures[f'over_sklearn_{size}']:9.1f}",
    ]
    return figures, lines


def one_by_one(index: Index, queries: np.ndarray) -> None:
    for query in queries:
        index.search(query, K)


def ranked_again(index: Index, stored: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Rows (q, k) of the nearest by the vectors on disk among those that are the nearest by their codes."""
    rows = index.search(queries, RANKED_AGAIN).ids
    order = np.argsort(exact_distances(queries, stored, rows), axis=1)[:, :K]
    return np.take_along_axis(rows, order, 1)


def names(name: str, built: dict[str, Index]) -> str:
    if name not in built:
        again = f"ours, ivfpq, {RANKED_AGAIN} ranked again"
        return {"exact": "faiss IndexFlatL2", "sklearn": "scikit-learn, brute", "again": again}[name]
    index = built[name]
    breadth = f", {breadth_name(index.spec.kind)} {index.nprobe or index.ef_search}" if index.recall else ""
    return f"ours, {'chosen: ' if name == 'auto' else ''}{index.spec.kind}{breadth}"


def exact_reach(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """How far the exact neighbors reach (q, 1); of equally near vectors each will do."""
    return true_distances(vectors, rows, queries).max(axis=1, keepdims=True) * (1 + 1e-5) + 1e-9


def true_distances(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Squared distances (q, k) from the definition."""
    return np.square(vectors[rows].astype(np.float64) - queries[:, None]).sum(axis=2)
