"""The most memory that a cell took."""

from pathlib import Path

import torch

from pretrain.remembered_maps import MEMORY

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Forget the highest use so far, where the system can: on a GPU, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text("5")  # man 5 proc: resets VmHWM to what is used now
    except OSError:  # not Linux, or not allowed: then the peak is that of the whole process
        return


def peak_megabytes(device: torch.device) -> float | None:
    """The highest use since `reset_peak`: of the GPU, or of the whole process but for the maps that it remembers; none
    where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, ValueError):
        return None
    remembered = MEMORY.get()
    return (int(line.split()[1]) * 1024 - (remembered.bytes if remembered else 0)) / 1e6
