"""Our patch methods as contestants of patches.py, which starts this file."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from protocol import serve
from torch.nn.functional import interpolate

sys.path.append(str(Path(__file__).resolve().parents[3]))

from downstream.methods.catalogue import detect_class
from pretrain.encoder import load_encoder


class Images(Sequence):
    """uint8 (n, h, w, 3) as images float32 (3, size_px, size_px), over and over, each made when it is asked for."""

    def __init__(self, pixels: np.ndarray, size_px: int, repeat: int = 1) -> None:
        self.pixels, self.size_px, self.repeat = pixels, size_px, repeat

    def __len__(self) -> int:
        return self.repeat * len(self.pixels)

    def __getitem__(self, position: int) -> torch.Tensor:
        if not 0 <= position < len(self):
            raise IndexError(position)
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[position % len(self.pixels)])).permute(2, 0, 1)
        if pixels.shape[-1] != self.size_px:
            pixels = interpolate(pixels[None], self.size_px, mode="bilinear", antialias=True)[0]
        return pixels.float().div(255)


class Contestant:
    """A method with some arguments on images in .npy files, uint8 (n, h, w, 3)."""

    def __init__(self, method: str, encoder: str, train: str, test: str, size_px: int, arguments: dict) -> None:
        self.method = detect_class(method)(encoder=load_encoder(encoder), **arguments)
        self.train, self.test = np.load(train, mmap_mode="r"), np.load(test, mmap_mode="r")
        self.size_px = size_px

    def fit(self, repeat: int = 1) -> None:
        self.method.refer(Images(self.train, self.size_px, repeat))

    def predict(self, batch: int, count: int) -> list[float]:
        self.method.batch_size = batch
        predictions = self.method.predict(
            image for image, _ in zip(Images(self.test, self.size_px), range(count), strict=False)
        )
        return torch.cat([prediction.scores for prediction in predictions]).tolist()


if __name__ == "__main__":
    serve(Contestant, __doc__)
