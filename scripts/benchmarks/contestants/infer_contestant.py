"""Our model, native or exported, as a contestant of benchmark_infer.py, which starts this file.

Reads one JSON object a line from standard input and answers each with one. Imports what its model needs, no more: the
time to the first answer is measured too.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np


class Contestant:
    """`model` is a folder that detect.py fit wrote, or an exported file; images are uint8 (n, h, w, 3) in a .npy."""

    def __init__(self, model: str, image_set: str, threads: int, bf16: bool = False) -> None:
        self.images, self.is_native = np.load(image_set, mmap_mode="r"), Path(model).is_dir()
        if not self.is_native:
            from downstream.methods.exported import Exported

            self.method = Exported(Path(model), threads=threads)
            return
        import torch

        from downstream.methods.catalogue import load_any

        torch.set_num_threads(threads)
        self.method = load_any(Path(model))
        if bf16:
            in_fp32 = self.method.patches

            def patches(images: torch.Tensor) -> torch.Tensor:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return in_fp32(images)

            self.method.patches = patches

    def predict(self, batch: int, count: int) -> list[float]:
        given = [np.array(self.images[number]) for number in range(count)]
        if self.is_native:
            import torch

            given = (torch.from_numpy(one).permute(2, 0, 1).float().div(255) for one in given)
        self.method.batch_size = batch
        return [float(score) for part in self.method.predict(given) for score in part.scores]


def serve(kind: type, usage: str) -> None:
    """Make a contestant of the JSON in the one argument, and answer each task, a line of JSON on standard input, by a
    line of it: seconds, CPU seconds, peak memory, scores."""
    if len(sys.argv) != 2 or not sys.argv[1].startswith("{"):
        sys.exit(usage)
    contestant = kind(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        task = json.loads(line)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        scores = getattr(contestant, task.pop("do"))(**task)
        done = {"seconds": time.perf_counter() - start_s, "cpu_seconds": time.process_time() - start_cpu_s}
        print(json.dumps({**done, "peak_mib": peak_mib(), "scores": scores}), flush=True)


def peak_mib() -> float | None:
    """The most memory that this process held; `ru_maxrss` begins at what its parent held. None but on Linux."""
    try:
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(kib) / 1024


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    serve(Contestant, __doc__)
