"""What runs on Ray gives what it gives in one process, whatever dies meanwhile. One Ray for all tests of this file."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType

import faiss
import numpy as np
import on_ray
import psutil
import pytest
import torch
from clustered_vectors import QUERIES, VECTORS
from conftest import REPOSITORY, STUDY_OPTIONS
from fitted_models import PATCHCORE, SIZE_PX, run_detect
from manifests import rows_of, run_manifest
from refusals import refusal

from downstream.evaluate import main
from downstream.inspection.inspector import Inspector
from downstream.study.cell import read_cell
from downstream.study.config import Evaluate
from embeddings import search
from embeddings.config import Extract, Search
from embeddings.extract import extract
from embeddings.index import Index
from embeddings.index.shards import shard_of
from embeddings.vectors import Vectors
from pretrain.actors import objects_at
from pretrain.command import UserError, read_config
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place
from pretrain.encoder import make_encoder
from pretrain.reading import read_json
from pretrain.tasks import ATTEMPTS, LOCAL, Connected, Lost, OnRay, Spread, tasks_at
from scripts.benchmarks import scale

if find_spec("ray") is None:  # not imported: where it listens is decided as it is
    pytest.skip("needs the extra ray", allow_module_level=True)
HERE = Spread(address=LOCAL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine with two workers, as `--address local` starts it; every command of a test finds it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pretrain.tasks.usable_cores", lambda: 2)
        patched.setattr("pretrain.tasks.STORE_BYTES", 80 * 2**20)
        patched.setenv("PYTHONPATH", os.path.dirname(on_ray.__file__), prepend=os.pathsep)
        with tasks_at(HERE):
            yield


pytestmark = pytest.mark.usefixtures("cluster")


def test_results_are_those_of_this_process_and_come_from_several():
    with tasks_at(HERE) as tasks:
        found = dict(tasks.map(on_ray.squared, range(40)))
    assert {number: square for number, (square, _) in found.items()} == {n: n * n for n in range(40)}
    workers = {pid for _, pid in found.values()}
    assert len(workers) >= 2 and os.getpid() not in workers


def test_tasks_are_taken_only_as_workers_can_be_given():
    taken = []
    endless = (taken.append(number) or number for number in count())
    with tasks_at(HERE) as tasks:
        results = tasks.map(on_ray.squared, endless)
        for _ in range(10):
            next(results)
        results.close()
    assert len(taken) <= 10 + 4


def test_a_mistake_is_raised_as_it_is_here():
    with tasks_at(HERE) as tasks, pytest.raises(UserError, match=r"^3 is wrong$"):
        list(tasks.map(on_ray.wrong, [3]))


def test_a_worker_that_lacks_a_module_is_a_sentence(monkeypatch):
    module = ModuleType("here_alone")
    exec("def watched(function, task, patience_s): ...", vars(module))
    monkeypatch.setitem(sys.modules, "here_alone", module)
    monkeypatch.setattr("pretrain.tasks._watched", module.watched)
    with tasks_at(HERE) as tasks, pytest.raises(UserError, match=r"No module named 'here_alone'\): install the same"):
        list(tasks.map(on_ray.squared, [3]))


def test_in_order_no_more_are_done_ahead_than_workers_can_be_given():
    taken = []
    tasks = (taken.append(seconds) or seconds for seconds in [1.0, *[0.0] * 20])
    with tasks_at(HERE) as spread:
        results = spread.map(on_ray.hangs, tasks, in_order=True)
        assert next(results) == (1.0, None) and len(taken) <= 4
        assert [task for task, _ in results] == [0.0] * 20


def test_a_task_whose_worker_dies_is_done_by_another(tmp_path):
    with tasks_at(HERE) as tasks:
        assert list(tasks.map(on_ray.dies_at_first, [str(tmp_path)])) == [(str(tmp_path), "done")]


def test_a_task_that_hangs_every_time_is_lost_and_the_others_are_not():
    tasks = OnRay(Connected(import_module("ray")), patience_s=0.5, gpus=0)
    found = dict(tasks.map(on_ray.hangs, [0.0, 60.0, 0.01]))
    assert found[0.0] is found[0.01] is None
    assert isinstance(found[60.0], Lost) and f"{ATTEMPTS} times, or took longer than 0.5 s" in found[60.0].reason


@pytest.mark.slow
def test_a_worker_that_is_frozen_is_ended_from_outside_and_keeps_no_other(tmp_path, monkeypatch):
    tasks = OnRay(Connected(import_module("ray")), patience_s=1, gpus=0)
    with monkeypatch.context() as once:  # afterwards a worker may take long to start, as on a machine that is busy
        once.setattr("pretrain.tasks.FROZEN_S", 5.0)
        ((_, lost),) = tasks.map(on_ray.freezes, [str(tmp_path)])
    assert isinstance(lost, Lost) and "took longer than 1 s" in lost.reason
    stopped = [each for each in psutil.Process().children(recursive=True) if each.status() == psutil.STATUS_STOPPED]
    until(lambda: not any(each.is_running() for each in stopped))
    patient = OnRay(Connected(import_module("ray")), patience_s=60, gpus=0)
    assert dict(patient.map(on_ray.freezes, [str(tmp_path)])) == {str(tmp_path): "done"}


def test_a_connection_that_is_refused_to_a_worker_is_not_the_end_of_ray():
    with tasks_at(HERE) as tasks, pytest.raises(ConnectionRefusedError, match="3 was refused"):
        list(tasks.map(on_ray.refused, [3]))


def test_of_a_full_disk_it_is_said_whose_it_is():
    with tasks_at(HERE) as tasks, pytest.raises(UserError, match=f"the disk of {socket.gethostname()} is full"):
        list(tasks.map(on_ray.fills, ["/dev/full"]))


def test_results_that_do_not_fit_into_rays_store_wait_on_the_disk():
    """It has 80 MiB here, and four of 30 are under way."""
    with tasks_at(HERE) as tasks:
        found = list(tasks.map(on_ray.large, range(6), in_order=True))
    assert [(number, len(array), set(array[:: 2**20].tolist())) for number, array in found] == [
        (number, 30 * 2**20, {number}) for number in range(6)
    ]


def test_ray_listens_on_the_loopback_alone():
    ours = {os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))}
    held = [each for each in psutil.net_connections("tcp") if each.pid in ours and each.status == "LISTEN"]
    assert len(held) > 3 and {each.laddr.ip.removeprefix("::ffff:") for each in held} == {"127.0.0.1"}


def without_scores(rows):
    """What does not depend on how many threads a process has."""
    return [(row["path"], row["reason"], row["is_defective"], row["digest"], row["overlay"]) for row in rows]


def check_same(rows, expected):
    assert without_scores(rows) == without_scores(expected)
    for ours, theirs in zip(rows, expected, strict=True):
        assert ours["reason"] or ours["score"] == pytest.approx(theirs["score"], rel=1e-5)


def test_inspection_on_ray_gives_the_rows_of_one_process(listed_images, listed_rows, padim_folder, tmp_path):
    assert run_manifest(listed_images, padim_folder, tmp_path, "--address", "local") == 1
    check_same(rows_of(tmp_path), listed_rows)


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_lose_nothing_and_repeat_nothing(
    listed_images, listed_rows, padim_folder, tmp_path
):
    out, folder = tmp_path / "out", tmp_path / "out" / "results"
    words = ["--data", listed_images, "--model", padim_folder, "--out", out, "--part-images", 4, "--address", "auto"]
    command = [sys.executable, "downstream/detect.py", "run", *map(str, words)]
    driver = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: driver.poll() is not None or folder.is_dir() and len([*folder.glob("*.parquet")]) >= 2)
        kill_a_worker()
    finally:
        driver.kill()
    _, words = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, words
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    assert len(before) >= 2
    assert run_manifest(listed_images, padim_folder, out, "--address", "local") == 1
    check_same(rows_of(out), listed_rows)
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert not [file for file in out.rglob(".*")]


def test_vectors_and_models_on_ray_are_those_of_one_process(listed_images, tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)  # as a worker of one core has; the bits depend on it
    monkeypatch.chdir(tmp_path)  # where no worker is
    write_manifest(Place.of(str(listed_images)), tmp_path / "images.parquet")
    small = {"size_px": 32, "batch": 3, "part_images": 5, "precision": "32-true"}
    make_encoder("timm/test_resnet").save(tmp_path / "tiny.safetensors")
    small |= {"data": tmp_path / "images.parquet", "encoder": Path("tiny.safetensors"), "device": "cpu"}
    here = Vectors(extract(Extract(out=tmp_path / "here", **small)))
    on_ray = Vectors(extract(Extract(out=tmp_path / "ray", address="local", **small)))
    assert np.array_equal(here[:], on_ray[:]) and np.array_equal(here.image_ids, on_ray.image_ids)
    assert [line.path for line in here.records] == [line.path for line in on_ray.records] and len(here) == 24
    check_search_on_ray(on_ray, tmp_path, monkeypatch, capsys)
    options = ("--encoder", "random", "--options", f"encoder=tiny.safetensors,{PATCHCORE}", "--size-px", SIZE_PX)
    fit = ("fit", "--data", tmp_path / "images.parquet", "--method", "fused", "--part-images", 5, *options)
    assert run_detect(*fit, "--out", tmp_path / "model here") == 0
    assert run_detect(*fit, "--out", tmp_path / "model ray", "--address", "local") == 0
    ours, theirs = (Inspector.load(tmp_path / f"model {name}", "cpu") for name in ("ray", "here"))
    assert ours.metadata["learned_from"] == theirs.metadata["learned_from"]
    assert ours.normal_scores == pytest.approx(theirs.normal_scores, rel=1e-5)


def test_the_cells_of_a_study_on_ray_are_those_of_one_process_whatever_dies(
    demo_folder, encoder_file, tmp_path, capsys
):
    torch.set_num_threads(1)
    options = ("--data", demo_folder, "--encoder", encoder_file, *STUDY_OPTIONS, "--methods", "padim", "--seeds", "0")
    assert evaluate(*options, "--out", tmp_path / "here") == 0
    out = tmp_path / "ray"
    killing = threading.Thread(target=lambda: until(lambda: any(out.glob("cells/*/*.safetensors"))) or kill_a_worker())
    killing.start()
    assert evaluate(*options, "--out", out, "--address", "local", "--memory-gb", 0.5) == 0
    killing.join()
    assert "on Ray: 2 at once, 1 cores and 0.5 GiB each" in capsys.readouterr().err
    cells = [
        {path.name: read_cell(path) for path in each.glob("cells/*/*.safetensors")} for each in (tmp_path / "here", out)
    ]
    assert cells[0].keys() == cells[1].keys() and len(cells[0]) == 6
    for name, theirs in cells[0].items():
        ours = cells[1][name]
        assert (
            ours.scores.tolist() == theirs.scores.tolist()
            and ours.normal_scores.tolist() == theirs.normal_scores.tolist()
        )
        assert (ours.threshold, ours.map_threshold, ours.pixel) == (
            theirs.threshold,
            theirs.map_threshold,
            theirs.pixel,
        )
    assert not (out / "running").exists()
    with pytest.raises(UserError, match="no machine of this Ray has 99 cores"):
        evaluate(*options, "--out", tmp_path / "other", "--address", "local", "--cores", 99)


def evaluate(*arguments: object) -> int:
    return main(read_config(Evaluate, list(map(str, arguments))))


def newest_holder() -> psutil.Process:
    """The actor that was started last of those that hold shards: some of an earlier test may still be ending."""
    holders = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("ray::Holder")]
    return max(holders, key=lambda each: each.create_time())


def kill_a_holder() -> None:
    holder = newest_holder()
    holder.kill()
    until(lambda: not holder.is_running())


def test_shards_in_actors_find_what_one_index_finds_and_say_what_a_lost_one_hid(tmp_path):
    one, ids = Index.build(VECTORS, metric="l2"), np.arange(3000)
    with objects_at(HERE) as hold:
        index = Index.build(VECTORS, metric="l2", shards=2, hold=hold)
        for each in (one, index):
            each.remove(ids[:900:3])
            each.add(VECTORS[:600:3], ids[:600:3])
        for among in (None, ids[ids % 7 > 4]):
            found, expected = (each.search(QUERIES, 9, among=among) for each in (index, one))
            assert np.array_equal(found.ids, expected.ids) and np.array_equal(found.distances, expected.distances)
        index.save(tmp_path)
        whole = index.search(QUERIES, 9)
        kill_a_holder()
        partial = index.search(QUERIES, 9)
        assert len(partial.missing) == 1 and "of 2900 vectors) was lost" in partial.missing[0]
        lives = partial.missing[0].startswith("shard 1 of 2")  # the other one's number
        assert (shard_of(partial.ids, 2) == lives).all()
        for nearest, left in zip(whole.ids, partial.ids, strict=True):
            assert np.isin(nearest[shard_of(nearest, 2) == lives], left).all()
        until(lambda: not index.search(QUERIES, 9).missing)  # it comes back from disk
        found = index.search(QUERIES, 9)
        assert np.array_equal(found.ids, whole.ids) and np.array_equal(found.distances, whole.distances)
        index.remove(ids[1000:1020])
        kill_a_holder()
        most = index.search(QUERIES, 2000)
        assert len(most.missing) == 1 and most.ids[0, -1] == -1 and np.isinf(most.distances[0, -1])
        assert "with changes that were not saved" in index.search(QUERIES, 9).missing[0]
        assert "load the index again" in refusal(index.save, tmp_path)
    assert len(Index.load(tmp_path)) == 2900  # as it was saved, and searched in this process


def test_while_a_replica_lives_nothing_is_missing(tmp_path):
    Index.build(VECTORS, shards=2).save(tmp_path)
    expected = Index.load(tmp_path).search(QUERIES, 5).ids
    with objects_at(HERE, copies=2) as hold:
        index = Index.load(tmp_path, hold=hold)
        kill_a_holder()
        for _ in range(3):
            found = index.search(QUERIES, 5)
            assert not found.missing and np.array_equal(found.ids, expected)


def test_a_holder_that_is_frozen_is_ended_and_replaced_and_meanwhile_what_is_found_is_partial(tmp_path):
    Index.build(VECTORS, shards=2).save(tmp_path)
    expected = Index.load(tmp_path).search(QUERIES, 5).ids
    with objects_at(replace(HERE, patience_s=2)) as hold:
        index = Index.load(tmp_path, hold=hold)
        frozen = newest_holder()
        frozen.suspend()
        (reason,) = index.search(QUERIES, 5).missing
        assert "gave no answer within 2 s" in reason
        until(lambda: not index.search(QUERIES, 5).missing)
        assert np.array_equal(index.search(QUERIES, 5).ids, expected)
        until(lambda: not frozen.is_running())


def test_a_replica_that_could_not_be_changed_does_not_answer_beside_one_that_was(tmp_path):
    with objects_at(HERE, copies=2) as hold:
        held = hold(on_ray.Counter, 1)
        assert held.change("add", {0: (str(tmp_path), 1)}) == {0: 1}
        held.tell("told", "bolts")
        assert [held.ask("said", {0: ()}) for _ in range(4)] == [{0: "1 bolts"}] * 4
        with pytest.raises(MemoryError, match="no room"):
            held.change("add", {0: (str(tmp_path), 2)})
        (lost,) = held.ask("said", {0: ()}).values()
        assert isinstance(lost, Lost) and "with changes that were not saved" in lost.reason
        held.kept(on_ray.Counter)  # made anew, it knows what was told
        until(lambda: held.ask("said", {0: ()}) == {0: "0 bolts"})


@pytest.mark.slow
def test_a_lost_replica_of_an_index_that_another_process_saved_says_to_load_it_again(tmp_path):
    Index.build(VECTORS, shards=2).save(tmp_path)
    with objects_at(HERE) as hold:
        index = Index.load(tmp_path, hold=hold).to("cpu")
        other = Index.load(tmp_path)
        other.remove(other.ids[:5])
        other.save(tmp_path)
        kill_a_holder()
        until(lambda: "being made again" not in index.search(QUERIES, 5).missing[0])
        reason = index.search(QUERIES, 5).missing[0]
        assert "another process saved: load it again" in reason and "remove" not in reason
        assert len(Index.load(tmp_path, hold=hold).search(QUERIES, 5).missing) == 0


def check_search_on_ray(vectors: Vectors, tmp_path, monkeypatch, capsys) -> None:
    """The command finds over shards what it finds in one process, and says it where one is lost."""
    found = tmp_path / "found.json"
    asked = Search(queries=(vectors.records[3].path,), vectors=vectors.folder, k=4, device="cpu", json=found,
                   sheet=tmp_path / "found.html")  # fmt: skip
    ray = replace(asked, address="local", shards=2)
    assert search.main(ray) == 0
    over_shards = read_json(found)
    assert (over_shards["index"]["shards"], over_shards["missing"]) == (2, [])
    assert search.main(asked) == 0 and read_json(found) == over_shards
    searched = search.search
    monkeypatch.setattr(search, "search", lambda *arguments: kill_a_holder() or searched(*arguments))
    assert search.main(ray) == 1
    (reason,) = read_json(found)["missing"]
    assert f"PARTIAL: {reason}" in capsys.readouterr().err and reason in (tmp_path / "found.html").read_text()


@pytest.mark.slow
def test_the_benchmark_of_scale_compares_what_is_the_same(tmp_path, monkeypatch):
    """Tiny, and by the Ray of this file."""
    monkeypatch.setattr(scale, "cluster", lambda *_: nullcontext())
    monkeypatch.setattr(scale, "alone", lambda part, *arguments: part(*arguments))
    monkeypatch.setattr(scale, "DRAWN", 6)
    figures, lines = scale.throughput(scale.images_of(tmp_path, 24), tmp_path, 24, 1, scale.PLAIN)
    rates = [figures[f"{name} {done}/s"] for name in scale.PLAIN for done in ("extracted", "inspected")]
    assert min(rates) > 0 and figures["overhead"] == max(figures["overhead_extract"], figures["overhead_inspect"])
    assert f"{figures['overhead_extract']:+.1%} time for extraction" in lines[-1]
    memory, _ = scale.driver_memory((40, 120), tmp_path)
    assert memory["driver_growth"] < 1.2 and memory["driver_peak_mib"][0] > 50
    threads = faiss.omp_get_max_threads()
    found, _ = scale.search(2000, 2, 1, tmp_path)
    faiss.omp_set_num_threads(threads)
    assert found["same_neighbors"] == 1 and found["flat, 2 shards on Ray, build s"] > 0


def until(is_so) -> None:
    deadline_s = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def kill_a_worker() -> None:
    """Kill one of Ray's workers, one that is at work where there is one."""
    workers = [each for each in psutil.Process().children(recursive=True) if each.name().startswith("ray::")]
    workers = [each for each in workers if "Agent" not in each.name()]
    (next((each for each in workers if "IDLE" not in each.name()), None) or workers[0]).kill()
