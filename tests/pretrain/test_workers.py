"""Worker processes do not outlive the process they work for, and do not start its script again."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

from pretrain import workers

PARENT = """
import os, time
from pretrain.workers import worker_pool

print("started", flush=True)
with worker_pool(1) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_worker_does_not_run_its_parents_script_and_ends_with_it_when_it_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout.readline() == "started\n"
        worker = int(parent.stdout.readline())  # a second "started" is no number
        assert runs(worker)
        os.kill(parent.pid, signal.SIGKILL)
    end_s = time.monotonic() + 20
    while runs(worker) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not runs(worker)


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= workers.usable_cores() <= os.cpu_count()


def test_only_a_worker_that_imports_its_parents_script_is_refused(monkeypatch):
    workers.refuse_import_by_worker()
    monkeypatch.setattr(workers.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match="__main__"):
        workers.refuse_import_by_worker()
