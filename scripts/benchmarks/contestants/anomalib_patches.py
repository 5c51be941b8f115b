"""anomalib's models as a contestant of patches.py, which starts this file with a Python that has anomalib.

Imports nothing of heldout's.
"""

import numpy as np
import torch
from protocol import serve

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Contestant:
    """Padim or Patchcore on images in .npy files, uint8 (n, h, w, 3)."""

    def __init__(self, model: str, weights: str, train: str, test: str, dimensions: int, share: float) -> None:
        from safetensors.torch import load_file

        self.name, self.share, self.weights, self.dimensions = model, share, load_file(weights), dimensions
        self.train, self.test = np.load(train, mmap_mode="r"), np.load(test, mmap_mode="r")

    def fit(self, repeat: int = 1) -> None:
        if self.name == "padim":
            from anomalib.models.image.padim.torch_model import PadimModel

            layers = ["layer1", "layer2", "layer3"]
            self.model = PadimModel("resnet18", layers, pre_trained=False, n_features=self.dimensions)
        else:
            from anomalib.models.image.patchcore.torch_model import PatchcoreModel

            self.model = PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False)
        self.model.feature_extractor.feature_extractor.load_state_dict(self.weights, strict=False)
        self.model.train()
        self.model.feature_extractor.eval()
        for _ in range(repeat):
            for start in range(0, len(self.train), 32):
                self.model(images(self.train[start : start + 32]))
        if self.name == "padim":
            self.model.fit()
        else:
            self.model.subsample_embedding(self.share)
        self.model.eval()

    def predict(self, batch: int, count: int) -> list[float]:
        scores = []
        for start in range(0, count, batch):
            scores += self.model(images(self.test[start : start + batch])).pred_score.flatten().tolist()
        return scores


def images(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w), normalized as anomalib's pre-processor does."""
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


if __name__ == "__main__":
    serve(Contestant, __doc__)
