"""Whole rows or none: whatever happens while the cache is filled."""

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from pretrain.command import UserError
from pretrain.data import cache, decode_pool
from pretrain.data.cache import open_cached, store_folder
from pretrain.data.decode import decode

SIZE_PX = 32
FILL = """
import sys
import time
from pathlib import Path
from pretrain.data import cache
if __name__ == "__main__":
    cache.SECONDS_BETWEEN_COMMITS = 0.0
    # A slow disk, so that a kill falls into the middle.
    cache.os.fsync = lambda descriptor: print("committing", flush=True) or time.sleep(0.005)
    folder = Path(sys.argv[1])
    print("starting", flush=True)
    cache.open_cached(folder, sorted(folder.iterdir()), 32, int(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """120 different images, and a cache of their own."""
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SECONDS_BETWEEN_COMMITS", 0.0)
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(120):
        pixels = generator.integers(0, 256, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png", compress_level=1)
    return folder


def assert_right(folder: Path, cached: cache.Cached) -> None:
    """Every image of the folder is there, as it would be decoded now."""
    for path in sorted(folder.iterdir()):
        entry = cached.entries[path]
        assert np.array_equal(cached.pixels[entry.row], decode(path, SIZE_PX).pixels), path
        assert (entry.height, entry.width) == (48, 40)
    assert len({entry.row for entry in cached.entries.values()}) == len(cached.entries)


def open_all(folder: Path, workers: int = 1) -> cache.Cached:
    return open_cached(folder, sorted(folder.iterdir()), SIZE_PX, workers)


def start_filling(folder: Path, workers: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-c", FILL, str(folder), str(workers)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def forbid_decoding(monkeypatch) -> None:
    def refuse(paths, *rest):
        raise AssertionError(f"decodes {len(paths)} images again")

    monkeypatch.setattr(cache, "decode_rows", refuse)


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_the_images(folder, workers):
    cached = open_all(folder, workers)
    assert cached.problems == []
    assert_right(folder, cached)
    assert not cached.pixels.flags.writeable


def test_second_time_decodes_nothing(folder, monkeypatch):
    first = open_all(folder)
    forbid_decoding(monkeypatch)
    assert open_all(folder).entries == first.entries


def test_only_what_changed_is_decoded_again(folder, monkeypatch):
    before = open_all(folder)
    changed, touched, gone = (folder / f"{number:03d}.png" for number in (3, 4, 5))
    Image.new("RGB", (40, 48), "red").save(changed)
    os.utime(touched, ns=(1, 1))
    gone.unlink()
    decoded = []
    original = decode_pool.decode_rows
    monkeypatch.setattr(cache, "decode_rows", lambda paths, *rest: decoded.extend(paths) or original(paths, *rest))
    after = open_all(folder)
    assert decoded == [changed, touched]
    assert_right(folder, after)
    # Whoever had the old pixels mapped still sees them.
    assert before.pixels[before.entries[changed].row].std() > 10


def test_sizes_and_folders_have_stores_of_their_own(folder, tmp_path):
    other = tmp_path / "elsewhere" / "images"
    shutil.copytree(folder, other)
    assert len({store_folder(folder, 32), store_folder(folder, 64), store_folder(other, 32)}) == 3
    assert open_cached(folder, [folder / "000.png"], 64).pixels.shape == (1, 64, 64, 3)


def test_bad_files_are_named_and_the_rest_is_cached(folder):
    good = sorted(folder.iterdir())
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:200])
    cached = open_cached(folder, [*sorted(folder.iterdir()), folder / "gone.png"], SIZE_PX, 2)
    assert sorted((path.name, reason[:12]) for path, reason, _ in cached.problems) == [
        ("cut.png", "damaged or c"),
        ("gone.png", "No such file"),
        ("zero.png", "the file is "),
    ]
    assert sorted(cached.entries) == good


def test_a_mended_file_is_taken_in(folder):
    image = folder / "000.png"
    whole = image.read_bytes()
    image.write_bytes(b"")
    assert len(open_all(folder).problems) == 1
    image.write_bytes(whole)
    assert_right(folder, open_all(folder))


def test_names_that_are_no_unicode(folder):
    strange = folder / os.fsdecode(b"caf\xe9.png")
    shutil.copy(folder / "000.png", strange)
    assert_right(folder, open_all(folder))


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_and_right_afterwards(folder, workers):
    generator = random.Random(workers)
    found = []
    for _ in range(4):
        filling = start_filling(folder, workers)
        assert filling.stdout.readline() == b"starting\n"
        assert filling.stdout.readline() == b"committing\n"
        time.sleep(generator.uniform(0, 0.2))
        filling.kill()
        filling.communicate()
        # A finished entry never points to a row that is not the image.
        partly = cache._Store(store_folder(folder, SIZE_PX), folder, SIZE_PX)
        entries = partly.entries(cache._keys(sorted(folder.iterdir()))[0])
        pixels = partly.pixels()
        for path, entry in entries.items():
            assert np.array_equal(pixels[entry.row], decode(path, SIZE_PX).pixels)
        partly.close()
        found.append(len(entries))
        for path in list(entries)[::2]:
            os.utime(path)  # so that there is something left to do each time
    assert any(0 < count < 120 for count in found), f"no kill fell into the middle: {found}"
    assert_right(folder, open_all(folder, workers))


def test_workers_do_not_outlive_a_killed_parent(folder):
    for number in range(120, 1200):
        os.link(folder / "000.png", folder / f"{number:04d}.png")
    filling = start_filling(folder, workers=2)
    children: list[int] = []
    deadline_s = time.monotonic() + 20
    while len(children) < 3 and filling.poll() is None and time.monotonic() < deadline_s:  # two and the tracker
        children = [int(pid) for pid in Path(f"/proc/{filling.pid}/task/{filling.pid}/children").read_text().split()]
    assert len(children) >= 2
    filling.send_signal(signal.SIGKILL)
    filling.communicate()
    deadline_s = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_two_processes_at_once(folder):
    both = [start_filling(folder), start_filling(folder)]
    outputs = [filling.communicate(timeout=60) for filling in both]
    assert [filling.returncode for filling in both] == [0, 0], outputs
    cached = open_all(folder)
    assert_right(folder, cached)
    assert len(cached.pixels) == 120, "the second process must wait and reuse, not decode all again"


def test_full_disk_keeps_what_was_done_and_goes_on(folder, monkeypatch):
    original, calls = os.fsync, []

    def full_from_the_tenth_on(descriptor):
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full_from_the_tenth_on)
    with pytest.raises(UserError, match="no space left.*HELDOUT_CACHE.*goes on"):
        open_all(folder)
    monkeypatch.undo()
    monkeypatch.setenv("HELDOUT_CACHE", str(folder.parent / "cache"))
    with sqlite3.connect(store_folder(folder, SIZE_PX) / "index.sqlite") as index:
        assert index.execute("SELECT COUNT(*) FROM images").fetchone() == (9,)
    index.close()
    assert_right(folder, open_all(folder))


def test_too_little_space_is_said_before_anything_is_decoded(folder, monkeypatch):
    forbid_decoding(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="no space left"):
        open_all(folder)


def test_unwritable_cache_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="HELDOUT_CACHE"):
        open_all(folder)


def test_damaged_index_is_made_anew(folder, capsys):
    open_all(folder)
    (store_folder(folder, SIZE_PX) / "index.sqlite").write_bytes(b"not a database" * 100)
    assert_right(folder, open_all(folder))
    assert "damaged" in capsys.readouterr().err


def test_rows_that_are_gone_are_decoded_again(folder):
    open_all(folder)
    pixel_file = store_folder(folder, SIZE_PX) / "pixels.u8"
    os.truncate(pixel_file, pixel_file.stat().st_size // 2)
    assert_right(folder, open_all(folder))


def test_a_bit_that_changed_in_the_cache_is_found_where_it_is_looked_for(folder, capsys):
    row = open_all(folder).entries[folder / "007.png"].row
    pixel_file = store_folder(folder, SIZE_PX) / "pixels.u8"
    with open(pixel_file, "r+b") as file:
        file.seek(row * SIZE_PX**2 * 3 + 100)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(AssertionError, match="007.png"):
        assert_right(folder, open_all(folder))
    for said in ("1 images in the cache", ""):
        assert_right(folder, open_cached(folder, sorted(folder.iterdir()), SIZE_PX, 1, check=True))
        assert (error := capsys.readouterr().err).count("damaged") == bool(said) and said in error


@pytest.mark.parametrize("kept_rows", [0, 40])
def test_rows_that_are_gone_stay_gone_for_whoever_asks_later(folder, kept_rows):
    """A new row must not fill the file up to old entries with zeros: those would be black images."""
    open_all(folder)
    os.truncate(store_folder(folder, SIZE_PX) / "pixels.u8", kept_rows * SIZE_PX**2 * 3)
    shutil.copy(folder / "003.png", folder / "new.png")
    open_cached(folder, [folder / "new.png"], SIZE_PX)
    assert_right(folder, open_all(folder))


GUARDLESS = """
import sys
from pathlib import Path
from pretrain.data.cache import open_cached
folder = Path(sys.argv[1])
cached = open_cached(folder, sorted(folder.iterdir()), 32, 2)
print(len(cached.entries), len(cached.problems))
"""


def test_a_script_without_a_guard_gets_its_images_all_the_same(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GUARDLESS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for command, stdin in (([script], None), (["-"], GUARDLESS)):
        done = subprocess.run(
            [sys.executable, *command, folder], input=stdin, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "120 0\n" and "Traceback" not in done.stderr, done.stderr
        shutil.rmtree(store_folder(folder, SIZE_PX))


def test_cache_is_found_without_a_home(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path))
    assert cache.cache_root() == tmp_path
    monkeypatch.delenv("HELDOUT_CACHE")
    with pytest.raises(UserError, match="HELDOUT_CACHE"):
        cache.cache_root()


@pytest.mark.parametrize("count", [1, 48, 500, 5003])
def test_tasks_hold_every_job_once_and_end_small(count):
    """One process must not be left with a large task when the others have finished."""
    jobs = [(Path(f"{number}.png"), number) for number in range(count)]
    tasks = list(decode_pool._tasks(jobs, workers=2))
    assert [job for task in tasks for job in task] == jobs
    assert max(map(len, tasks)) <= decode_pool.MAX_IMAGES_PER_TASK
    assert max(map(len, tasks[-4:])) == 1


def test_all_processes_start_at_once(folder, monkeypatch):
    """Each takes longer to start than to decode ten images."""
    tasks = []
    original = ProcessPoolExecutor.submit

    def submit(pool, task, *rest):
        tasks.append((task, len(pool._processes)))
        return original(pool, task, *rest)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    assert_right(folder, open_all(folder, workers=3))
    first_with_images = next(processes for task, processes in tasks if task is decode_pool._decode_task)
    assert first_with_images == 3


def test_an_image_that_kills_its_decoder_is_named(tmp_path, monkeypatch):
    """A file on which the process dies, as of memory, must not take the others with it."""
    paths = [tmp_path / f"{number:02d}.png" for number in range(60)]
    for path in paths:
        Image.new("RGB", (8, 8), "blue").save(path)
    deadly = paths[17]
    os.truncate(deadly, 1 << 30)  # sparse; it takes a while to read

    rows = tmp_path / "rows.u8"
    rows.write_bytes(bytes(60 * 8 * 8 * 3))
    killer = subprocess.Popen([sys.executable, "-c", KILL_READER, str(deadly)])
    try:
        outcomes = dict(decode_pool.decode_rows(paths, rows, 0, 8, workers=2))
    finally:
        killer.kill()
        killer.wait()
    assert "brings the decoder down" in outcomes[deadly]
    assert all(isinstance(outcomes[path], decode_pool.Row) for path in paths if path != deadly)


# Kills whoever reads the file: from the outside, a decoder that crashes on it.
KILL_READER = """
import os, signal, sys
from pathlib import Path
deadly = os.path.realpath(sys.argv[1])
while True:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if deadly in map(os.readlink, (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass
"""


def test_no_more_processes_decode_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(decode_pool, "free_memory_bytes", lambda: 8 << 30)
    assert decode_pool.most_workers(256) > 40
    assert decode_pool.most_workers(10_000) == 8
    monkeypatch.setattr(decode_pool, "free_memory_bytes", lambda: 0)
    assert decode_pool.most_workers(256) == 1
