"""anomalib's Padim and Patchcore, by torch or by OpenVINO, as contestants of infer.py, which starts this file.

Needs a Python that has anomalib and openvino, where heldout is not. `make` fits and writes; the other processes only
load what it wrote, by the shortest way, so that the time to the first answer is theirs at its best.
"""

from pathlib import Path

import numpy as np
from protocol import serve


class Contestant:
    """`engine` is torch or openvino; images are uint8 (n, h, w, 3) in a .npy; `folder` has what `make` wrote."""

    def __init__(
        self, engine: str, model: str, backbone: str, folder: str, images: str, threads: int, dimensions: int
    ) -> None:
        self.folder, self.images, self.dimensions = Path(folder), np.load(images, mmap_mode="r"), dimensions
        self.model, self.backbone, self.engine, self.threads, self.run = model, backbone, engine, threads, None

    def make(self, weights: str, train: str, share: float, export: bool) -> None:
        """Fit by anomalib's own code, write the model's tensors, and with `export` the file that anomalib exports."""
        import torch
        from anomalib_patches import BACKBONES
        from anomalib_patches import Contestant as Fitted
        from safetensors.torch import save_file

        torch.set_num_threads(self.threads)
        fitted = Fitted(self.model, weights, train, train, self.dimensions, share, self.backbone)
        fitted.fit()
        self.folder.mkdir(parents=True)
        save_file(
            {name: t.contiguous() for name, t in fitted.model.state_dict().items()}, self.folder / "theirs.safetensors"
        )
        if not export:
            return
        from anomalib.models import Padim

        options = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}
        layers = list(BACKBONES[self.backbone][0])
        whole = Padim(self.backbone, layers, pre_trained=False, n_features=self.dimensions, **options)
        whole.model = fitted.model
        side = self.images.shape[1]
        with torch.no_grad():
            whole.to_openvino(self.folder, input_size=(side, side))

    def predict(self, batch: int, count: int) -> list[float]:
        self.run = self.run or getattr(self, f"open_{self.engine}")()
        scores = []
        for start in range(0, count, batch):
            scores += self.run(self.images[start : min(start + batch, count)])
        return scores

    def open_torch(self):
        import torch
        from anomalib_patches import images, make
        from safetensors.torch import load_file

        torch.set_num_threads(self.threads)
        model = make(self.model, self.backbone, self.dimensions)
        weights = load_file(self.folder / "theirs.safetensors")
        if self.model == "padim":  # what it learns is empty before, and of another shape
            model.gaussian.mean = weights["gaussian.mean"]
            model.gaussian.inv_covariance = weights["gaussian.inv_covariance"]
        else:
            model.memory_bank = weights["memory_bank"]
        model.load_state_dict(weights)
        model.eval()

        @torch.inference_mode()
        def run(batch: np.ndarray) -> list[float]:
            return model(images(batch, self.backbone)).pred_score.flatten().tolist()

        return run

    def open_openvino(self):
        """Of the ResNet-18; without torch, whose import would count against it."""
        import openvino

        core = openvino.Core()
        (file,) = self.folder.rglob("*.xml")
        model = core.compile_model(file, "CPU", {"INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"})
        mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
        std = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]

        def run(batch: np.ndarray) -> list[float]:
            given = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
            return model((given - mean) / std)["pred_score"].flatten().tolist()

        return run


if __name__ == "__main__":
    serve(Contestant, __doc__)
