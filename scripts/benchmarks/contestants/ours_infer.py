"""Our model, native or exported, as a contestant of infer.py, which starts this file.

Imports what its model needs and no more, so inside functions: the time to the first answer is measured too.
"""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from protocol import serve

sys.path.append(str(Path(__file__).resolve().parents[3]))


class Contestant:
    """`model` is a folder that detect.py fit wrote, or an exported file, which a `runtime` runs; images are uint8
    (n, h, w, 3) in a .npy."""

    def __init__(self, model: str, images: str, threads: int, bf16: bool = False, runtime: str = "onnxruntime") -> None:
        self.images, self.is_native = np.load(images, mmap_mode="r"), Path(model).is_dir()
        if not self.is_native:
            from downstream.methods.exported import Exported

            self.method = Exported(Path(model), threads=threads, runtime=runtime)
            return
        import torch

        from downstream.methods.loading import load_any

        torch.set_num_threads(threads)
        self.method = load_any(Path(model))
        if bf16:
            in_fp32 = self.method.patches

            def patches(images: torch.Tensor) -> torch.Tensor:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return in_fp32(images)

            self.method.patches = patches

    def settle(self) -> None:
        """Let the peak of memory begin anew, at what is held now; on Linux alone."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def predict(self, batch: int, count: int) -> list[float]:
        given = [np.array(self.images[number]) for number in range(count)]
        if self.is_native:
            import torch

            given = (torch.from_numpy(image).permute(2, 0, 1).float().div(255) for image in given)
        self.method.batch_size = batch
        return [float(score) for prediction in self.method.predict(given) for score in prediction.scores]


if __name__ == "__main__":
    serve(Contestant, __doc__)
