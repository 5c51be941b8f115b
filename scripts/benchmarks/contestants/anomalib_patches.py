"""anomalib's models as a contestant of patches.py, which starts this file with a Python that has anomalib.

Imports nothing of heldout's.
"""

import numpy as np
import torch
from protocol import serve

# By backbone: layers, shallow ones first, and the mean and deviation of pixels that its weights were trained with.
BACKBONES = {
    "resnet18": (("layer1", "layer2", "layer3"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tf_efficientnet_lite0": (("blocks.1", "blocks.2", "blocks.4"), (127 / 255,) * 3, (128 / 255,) * 3),
}


def make(model: str, backbone: str, dimensions: int) -> torch.nn.Module:
    """anomalib's model, its backbone without weights."""
    layers = list(BACKBONES[backbone][0])
    if model == "padim":
        from anomalib.models.image.padim.torch_model import PadimModel

        return PadimModel(backbone, layers, pre_trained=False, n_features=dimensions)
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    return PatchcoreModel(layers[1:], backbone, pre_trained=False)


class Contestant:
    """Padim or Patchcore on images in .npy files, uint8 (n, h, w, 3); `weights` are its backbone's, in timm's naming,
    `share` is of the patches that Patchcore keeps, `device` torch's."""

    def __init__(
        self,
        model: str,
        weights: str,
        train: str,
        test: str,
        dimensions: int,
        share: float,
        backbone: str = "resnet18",
        device: str = "cpu",
    ) -> None:
        from safetensors.torch import load_file

        self.name, self.share, self.weights, self.dimensions = model, share, load_file(weights), dimensions
        self.train, self.test = np.load(train, mmap_mode="r"), np.load(test, mmap_mode="r")
        self.backbone, self.device = backbone, device

    def fit(self, repeat: int = 1) -> None:
        self.model = make(self.name, self.backbone, self.dimensions)
        loaded = self.model.feature_extractor.feature_extractor.load_state_dict(self.weights, strict=False)
        if loaded.missing_keys:
            raise ValueError(f"no weights for {loaded.missing_keys}")
        self.model.to(self.device).train()
        self.model.feature_extractor.eval()
        for _ in range(repeat):
            for start in range(0, len(self.train), 32):
                self.model(images(self.train[start : start + 32], self.backbone).to(self.device))
        if self.name == "padim":
            self.model.fit()
        else:
            self.model.subsample_embedding(self.share)
        self.model.eval()

    def predict(self, batch: int, count: int) -> list[float]:
        scores = []
        for start in range(0, count, batch):
            given = images(self.test[start : start + batch], self.backbone).to(self.device)
            scores += self.model(given).pred_score.flatten().tolist()
        return scores

    @torch.inference_mode()
    def repeat(self, batch: int, count: int) -> float:
        """One batch that lies on the device already, over and over; a number of the last, so that it is waited for."""
        given = images(np.resize(self.test, (batch, *self.test.shape[1:])), self.backbone).to(self.device)
        for _ in range(max(1, count // batch)):
            scores = self.model(given).pred_score
        return float(scores.sum())


def images(pixels: np.ndarray, backbone: str) -> torch.Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w), normalized as the backbone's weights want it."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in BACKBONES[backbone][1:])
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255 - mean) / std


if __name__ == "__main__":
    serve(Contestant, __doc__)
