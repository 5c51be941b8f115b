"""Memory that is free: a container's limit counts where there is one, of either kind."""

import os
from mmap import mmap

import pytest

from pretrain import free_memory
from pretrain.free_memory import free_memory_bytes, own_memory_bytes

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files as the system has them, of 16 GiB that are available and no container."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {2**25} kB\nMemAvailable: {2**24} kB\n")
    monkeypatch.setattr(free_memory, "MEMINFO", meminfo)
    names = [[tmp_path / f"{kind}.{name}" for name in ("max", "current", "stat")] for kind in ("new", "old")]
    monkeypatch.setattr(free_memory, "CONTAINERS", names)
    return names


def test_without_a_container_all_that_is_available_is_free(machine, monkeypatch, tmp_path):
    assert free_memory_bytes() == 16 * GIB
    machine[0][0].write_text("max\n")
    machine[0][1].write_text("1\n")
    machine[0][2].write_text("inactive_file 1\n")
    assert free_memory_bytes() == 16 * GIB
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "none")
    assert free_memory_bytes() > 0


@pytest.mark.parametrize(("kind", "name"), [(0, "inactive_file"), (1, "total_inactive_file")])
def test_a_containers_limit_counts_without_what_it_gives_back(machine, kind, name):
    limit, used, statistics = machine[kind]
    limit.write_text(f"{4 * GIB}\n")
    used.write_text(f"{3 * GIB}\n")
    statistics.write_text(f"anon 5\n{name} {2 * GIB}\n")
    assert free_memory_bytes() == 3 * GIB
    used.write_text(f"{9 * GIB}\n")
    assert free_memory_bytes() == 0
    limit.write_text(f"{2**63}\n")
    assert free_memory_bytes() == 16 * GIB


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not say")
def test_what_a_process_holds_is_its_own():
    before = own_memory_bytes()
    with mmap(-1, 2**26) as held:  # pages that are new, where an array may lie where another lay
        held.write(b"x" * len(held))
        assert own_memory_bytes() - before > 0.5 * len(held)
