"""How a contestant speaks with its benchmark: a JSON object per line, in and out. Imports nothing of heldout's, and
little else: the time from the start of a contestant to its first answer is measured too."""

import json
import re
import sys
import time
from pathlib import Path


def serve(contestant_class: type, usage: str) -> None:
    """Make a contestant of the JSON in the one argument, and answer each task, a line of JSON on standard input, by a
    line of it: seconds, CPU seconds, peak memory, and what the task returned as scores."""
    if len(sys.argv) != 2 or not sys.argv[1].startswith("{"):
        sys.exit(usage)
    contestant = contestant_class(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        task = json.loads(line)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        scores = getattr(contestant, task.pop("do"))(**task)
        spent = {"seconds": time.perf_counter() - start_s, "cpu_seconds": time.process_time() - start_cpu_s}
        print(json.dumps({**spent, "peak_mib": peak_mib(), "scores": scores}), flush=True)


def peak_mib() -> float | None:
    """The most memory that this process held; `ru_maxrss` begins at what its parent held. None but on Linux."""
    try:
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(kib) / 1024
