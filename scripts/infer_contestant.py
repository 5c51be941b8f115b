"""Our model, native or exported, as a contestant of benchmark_infer.py, which starts this file.

Reads one JSON object a line from standard input and answers each with one. Imports what its model needs, no more: the
time to the first answer is measured too.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np


class Contestant:
    """`model` is a folder that detect.py fit wrote, or an exported file; pictures are uint8 (n, h, w, 3) in a .npy."""

    def __init__(self, model: str, pictures: str, threads: int, bf16: bool = False) -> None:
        self.pictures, self.is_native = np.load(pictures, mmap_mode="r"), Path(model).is_dir()
        if not self.is_native:
            from downstream.exported import Exported

            self.method = Exported(Path(model), threads=threads)
            return
        import torch

        from downstream.methods import load_any

        torch.set_num_threads(threads)
        self.method = load_any(Path(model))
        if bf16:
            in_fp32 = self.method.patches

            def patches(images: torch.Tensor) -> torch.Tensor:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return in_fp32(images)

            self.method.patches = patches

    def predict(self, batch: int, count: int) -> list[float]:
        given = [np.array(self.pictures[number]) for number in range(count)]
        if self.is_native:
            import torch

            given = (torch.from_numpy(one).permute(2, 0, 1).float().div(255) for one in given)
        self.method.batch_size = batch
        return [float(score) for part in self.method.predict(given) for score in part.scores]


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].startswith("{"):
        sys.exit(__doc__)
    contestant = Contestant(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        task = json.loads(line)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        scores = getattr(contestant, task.pop("do"))(**task)
        done = {"seconds": time.perf_counter() - start_s, "cpu_seconds": time.process_time() - start_cpu_s}
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**done, "peak_mib": peak_mib, "scores": scores}), flush=True)


if __name__ == "__main__":
    main()
