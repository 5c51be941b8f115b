"""How much memory this process has, and how much it may still have: of the machine, or of its container."""

import os
from pathlib import Path

STATUS, MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
# Where a container's limit and use stand, by the newer and the older kind of control groups.
CONTAINERS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)
# Of a container's use, what is given back where it is needed: files that were read.
GIVEN_BACK = ("inactive_file", "total_inactive_file")


def free_memory_bytes() -> int:
    """Memory that could be used without swapping, and within the container's limit."""
    return min([_of_machine(), *_of_container()])


def own_memory_bytes() -> int:
    """Memory that this process takes now; 0 where the system does not say."""
    try:
        return 1024 * int(_fields(STATUS)["VmRSS"].split()[0])
    except (OSError, KeyError):  # not Linux
        return 0


def _of_machine() -> int:
    try:
        return 1024 * int(_fields(MEMINFO)["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 4 << 30


def _of_container() -> list[int]:
    """What its limit leaves; of no container, and of one without a limit, nothing."""
    for limit, used, statistics in CONTAINERS:
        try:
            most = int(limit.read_text())
            lines = dict(line.split() for line in statistics.read_text().splitlines())
            given_back = next((int(lines[name]) for name in GIVEN_BACK if name in lines), 0)
            return [max(0, most - int(used.read_text()) + given_back)]
        except (OSError, ValueError):  # `max` is no number
            continue
    return []


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in path.read_text().splitlines())
