"""anomalib's Padim, by torch or by OpenVINO, as a contestant of infer.py, which starts this file.

Needs a Python that has anomalib and openvino, where heldout is not. `make` fits and writes; the other processes only
load what it wrote, by the shortest way, so that the time to the first answer is theirs at its best.
"""

from pathlib import Path

import numpy as np
from protocol import serve

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
LAYERS = ["layer1", "layer2", "layer3"]


class Contestant:
    """`engine` is torch or openvino; images are uint8 (n, h, w, 3) in a .npy; `folder` has what `make` wrote."""

    def __init__(self, engine: str, folder: str, images: str, threads: int, dimensions: int) -> None:
        self.folder, self.images, self.dimensions = Path(folder), np.load(images, mmap_mode="r"), dimensions
        self.engine, self.threads, self.run = engine, threads, None

    def make(self, weights: str, train: str) -> None:
        """Fit by anomalib's own code, write the model's tensors, and export as anomalib does."""
        import torch
        from anomalib.models import Padim
        from anomalib_patches import Contestant as Fitted
        from safetensors.torch import save_file

        fitted = Fitted("padim", weights, train, train, self.dimensions, 0.1)
        fitted.fit()
        self.folder.mkdir()
        save_file(
            {name: t.contiguous() for name, t in fitted.model.state_dict().items()}, self.folder / "theirs.safetensors"
        )
        options = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}
        whole = Padim("resnet18", LAYERS, pre_trained=False, n_features=self.dimensions, **options)
        whole.model = fitted.model
        side = self.images.shape[1]
        with torch.no_grad():
            whole.to_openvino(self.folder, input_size=(side, side))

    def predict(self, batch: int, count: int) -> list[float]:
        self.run = self.run or getattr(self, f"open_{self.engine}")()
        scores = []
        for start in range(0, count, batch):
            scores += self.run(images(self.images[start : min(start + batch, count)]))
        return scores

    def open_torch(self):
        import torch
        from anomalib.models.image.padim.torch_model import PadimModel
        from safetensors.torch import load_file

        torch.set_num_threads(self.threads)
        model = PadimModel("resnet18", LAYERS, pre_trained=False, n_features=self.dimensions)
        weights = load_file(self.folder / "theirs.safetensors")
        model.gaussian.mean = weights["gaussian.mean"]
        model.gaussian.inv_covariance = weights["gaussian.inv_covariance"]
        model.load_state_dict(weights)
        model.eval()

        @torch.inference_mode()
        def run(batch: np.ndarray) -> list[float]:
            return model(torch.from_numpy(batch)).pred_score.flatten().tolist()

        return run

    def open_openvino(self):
        import openvino

        core = openvino.Core()
        (file,) = self.folder.rglob("*.xml")
        model = core.compile_model(file, "CPU", {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"})

        def run(batch: np.ndarray) -> list[float]:
            return model(batch)["pred_score"].flatten().tolist()

        return run


def images(pixels: np.ndarray) -> np.ndarray:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w), normalized as anomalib's pre-processor does."""
    return (np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255) - MEAN) / STD


if __name__ == "__main__":
    serve(Contestant, __doc__)
