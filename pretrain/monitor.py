"""What pretraining is achieving, on normals that it does not learn from.

The figure that matters is how well synthetic anomalies on unseen normals are told from clean ones, by the distance of a
patch to its nearest patch in a few good images, compared as detection does it; beside its value before the first step,
since the start can do much of it. The others explain:
alignment and uniformity (Wang and Isola 2020, https://arxiv.org/abs/2005.10242), RankMe (Garrido et al. 2023,
https://arxiv.org/abs/2210.02885), and whether the space collapses.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.anomalies import add_anomaly
from pretrain.config import Config
from pretrain.data.dataset import ImageSet
from pretrain.data.images import some_of
from pretrain.encoder import Encoder
from pretrain.normalization import channel_statistics, normalized
from pretrain.views import draw_pair, render

# As detection compares them; on the grid of the second, as the first one's takes four times as long.
PATCH_LEVELS = ("level1", "level2", "level3")
# Of an image's patches, the strangest: their mean is its score.
TOP_SHARE = 0.01
MAX_IMAGES = 96
ANOMALIES_EACH = 2
# One for all runs, so that their figures compare, and no training's own.
MONITOR_SEED = 2**40
# 128 MiB; those of all patches at once would be 11 GiB for one category at 224 px.
DISTANCES_AT_ONCE = 2**25
# Below this share of the spread of random directions the projections point all one way.
COLLAPSED_SPREAD = 0.1
LEVEL, RESAMPLES = 0.95, 1000


class Figures(NamedTuple):
    """`synthetic_auroc` from 0.5, chance, to 1; `spread` 1 for random directions, 0 when collapsed."""

    synthetic_auroc: float
    alignment: float
    uniformity: float
    rank_me: float
    spread: float

    @property
    def is_collapsed(self) -> bool:
        return self.spread < COLLAPSED_SPREAD


class Monitor:
    """Fixed images, views and synthetic anomalies, so that the figures of two steps can be compared."""

    def __init__(self, references: ImageSet, unseen: ImageSet, config: Config, device: torch.device) -> None:
        size_px, seed = config.size_px, MONITOR_SEED
        each = max(2, MAX_IMAGES // (2 * len(unseen.categories)))
        self.device = device
        # Of each category: references, clean images, and these with synthetic anomalies.
        self.categories: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, category in enumerate(sorted(set(unseen.categories) & set(references.categories))):
            clean = _unaugmented(unseen.of(category), each, size_px)
            sources = clean.roll(1, 0)
            synthetic = [
                add_anomaly(clean, sources, seed, number, np.arange(len(clean)) + turn * len(clean))[0]
                for turn in range(ANOMALIES_EACH)
            ]
            self.categories.append((_unaugmented(references.of(category), each, size_px), clean, torch.cat(synthetic)))
        chosen = some_of(len(unseen), MAX_IMAGES)
        pixels = torch.from_numpy(unseen.batch(chosen))
        pair = draw_pair(config.strengths, seed, 0, np.array(chosen), same_crop=bool(config.dense_weight))
        self._views = [render(pixels, drawn, size_px) for drawn in pair]

    @torch.no_grad()
    def measure(self, encoder: Encoder, projection: nn.Module) -> Figures:
        """The figures of an encoder and its projection head as they are; both are left in the mode they were in."""
        # Layer by layer: frozen batch normalization must stay frozen.
        modes = [(layer, layer.training) for part in (encoder, projection) for layer in part.modules()]
        encoder.eval(), projection.eval()
        pooled, others = (_in_parts(encoder.pooled, view, self.device) for view in self._views)
        first, second = projection(pooled), projection(others)
        figures = Figures(
            synthetic_auroc=self.synthetic_auroc(encoder),
            alignment=float(alignment(first, second)),
            uniformity=float(uniformity(first)),
            rank_me=float(rank_me(pooled)),
            spread=float(spread(first)),
        )
        for layer, is_training in modes:
            layer.training = is_training
        return figures

    @torch.no_grad()
    def synthetic_auroc(self, encoder: Encoder) -> float:
        """Of an encoder in eval mode: the mean over the categories."""
        self._scored: list[tuple[np.ndarray, np.ndarray]] = []
        return float(np.mean([self._auroc(encoder, *images) for images in self.categories]))

    def interval(self) -> dict[str, float]:
        """At 95 %, of the `synthetic_auroc` that was measured last: by a bootstrap over normals, each with its
        anomalies."""
        means = np.mean([resampled_auroc(*scores) for scores in self._scored], axis=0)
        low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return {"synthetic_auroc_low": float(low), "synthetic_auroc_high": float(high)}

    @property
    def counts(self) -> dict[str, int]:
        """Of how many normals and anomalies it is."""
        normals = sum(len(clean) for _, clean, _ in self.categories)
        return {"synthetic_normals": normals, "synthetic_anomalies": normals * ANOMALIES_EACH}

    def _auroc(self, encoder: Encoder, references: Tensor, clean: Tensor, synthetic: Tensor) -> float:
        channels = [encoder.channels[level] for level in PATCH_LEVELS]
        known = _patches(encoder, references, self.device)
        statistics = channel_statistics([known])
        known = normalized(known, *statistics, channels).flatten(0, 1)
        scores = [
            _farthest(normalized(_patches(encoder, images, self.device), *statistics, channels), known)
            for images in (clean, synthetic)
        ]
        if not all(score.isfinite().all() for score in scores):
            return math.nan
        normal, anomalous = (score.cpu().numpy() for score in scores)
        self._scored.append((normal, anomalous.reshape(ANOMALIES_EACH, -1)))
        labels = [0] * len(clean) + [1] * len(synthetic)
        return roc_auc_score(labels, np.concatenate([normal, anomalous]))


def resampled_auroc(clean: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """AUROC of RESAMPLES draws of images with replacement, by scores of normals (n,) and of their anomalies (k, n)."""
    won = ((synthetic[:, :, None] > clean) + 0.5 * (synthetic[:, :, None] == clean)).mean(0)  # (n, n)
    drawn = np.random.default_rng(0).multinomial(len(clean), np.full(len(clean), 1 / len(clean)), RESAMPLES)
    return np.einsum("bi,ij,bj->b", drawn, won, drawn, optimize=True) / len(clean) ** 2


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the two views of an image, (n, d) each, on the unit sphere: 0 is best, 2 is chance."""
    return (F.normalize(first.float(), dim=1) - F.normalize(second.float(), dim=1)).square().sum(1).mean()


def uniformity(vectors: Tensor) -> Tensor:
    """log mean exp(-2 squared distance) over pairs of (n, d) on the unit sphere: the lower, the more evenly spread."""
    return F.pdist(F.normalize(vectors.float(), dim=1)).square().mul(-2).exp().mean().log()


def rank_me(vectors: Tensor) -> Tensor:
    """exp of the entropy of the singular values of (n, d): how many directions the features use."""
    if not vectors.isfinite().all():
        return torch.tensor(math.nan)
    shares = torch.linalg.svdvals(vectors.float())
    shares = shares / shares.sum().clamp(min=1e-12) + 1e-7
    return (-(shares * shares.log()).sum()).exp()


def spread(vectors: Tensor) -> Tensor:
    """Standard deviation of unit vectors (n, d) times sqrt(d), mean over d: 1 for random directions, 0 for one."""
    return F.normalize(vectors.float(), dim=1).std(0).mean() * vectors.shape[1] ** 0.5


def _unaugmented(image_set: ImageSet, count: int, size_px: int) -> Tensor:
    """At most `count` images, spread over all, without any change but their size: float32 (n, 3, h, w)."""
    images = torch.from_numpy(image_set.batch(some_of(len(image_set), count))).permute(0, 3, 1, 2).float().div(255)
    return F.interpolate(images, (size_px, size_px), mode="bilinear", antialias=True).clamp(0, 1)


def _patches(encoder: Encoder, images: Tensor, device: torch.device) -> Tensor:
    """Vectors of the levels on one grid, smoothed over 3 x 3 positions: (n, positions, c)."""

    def on_one_grid(part: Tensor) -> Tensor:
        maps = [F.avg_pool2d(m.float(), 3, 1, 1, count_include_pad=False) for m in encoder(part, PATCH_LEVELS).values()]
        side = maps[1].shape[-2:]
        fitted = [F.interpolate(m, side, mode="area" if m.shape[-1] > side[1] else "bilinear") for m in maps]
        return torch.cat(fitted, dim=1).flatten(2).transpose(1, 2)

    return _in_parts(on_one_grid, images, device)


def _farthest(patches: Tensor, known: Tensor) -> Tensor:
    """How far an image's strangest patches are from their nearest known ones: (n, positions, c), (m, c) -> (n,)."""
    parts = patches.flatten(0, 1).split(max(1, DISTANCES_AT_ONCE // len(known)))
    nearest = torch.cat([torch.cdist(part, known).amin(1) for part in parts]).view(len(patches), -1)
    return nearest.topk(max(1, round(TOP_SHARE * nearest.shape[1])), dim=1).values.mean(1)


def _in_parts(function, images: Tensor, device: torch.device, at_once: int = 32) -> Tensor:
    return torch.cat([function(part.to(device)) for part in images.split(at_once)])
