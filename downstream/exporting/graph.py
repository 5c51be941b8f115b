"""A fitted method as one torch module, from the pixels of a camera to the decision, with no branch in it.

It is what torch.export and the ONNX exporter can trace: everything that depends on the method alone is computed
here, once, and becomes a constant of the graph.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract.method import Method
from downstream.methods.ensemble import Ensemble
from downstream.methods.evidence import Evidence, inputs_of
from downstream.methods.fused import Fused
from downstream.methods.maps import counted_share, highest_count, upsampling_matrix
from downstream.methods.padim import PaDiM
from downstream.methods.patch_method import PatchMethod
from downstream.methods.patchcore import PatchCore
from downstream.methods.references import background
from downstream.methods.region import painted
from pretrain.command import UserError
from pretrain.data.size import Size, scaled, sides
from pretrain.encoder import LEVELS
from pretrain.normalization import normalized

# A whitening matrix is triangular: of so many stripes, each is multiplied only as far as it is not zero. Reading the
# matrices is what takes time for one image, and with 4 stripes 10 of 16 parts are read.
STRIPES = 4
# Rows of a coreset that are compared at once, so that a batch needs no matrix of all patches times the coreset.
CORESET_ROWS_AT_ONCE = 4096


class PatchVectors(nn.Module):
    """Images -> patch vectors float32 (b, rows, columns, d), as `method.patches` gives them before it normalizes.

    Images are uint8 RGB (b, h, w, 3), or with `takes_floats` float32 RGB (b, 3, h, w) in [0, 1]. `b` is free, `h` and
    `w` are those of `size_px`.
    """

    def __init__(self, method: PatchMethod, size_px: Size, takes_floats: bool = False) -> None:
        super().__init__()
        self.size_px, self.takes_floats = size_px, takes_floats
        self._patches = method._make_patches(method._opened_encoder())
        self.channels = self._patches.channels
        self.encoder = self._patches.encoder  # so that its weights are this module's
        self.encoder.stages.drop_after(max(self._patches.levels, key=LEVELS.index))  # nothing asks for deeper ones
        self.encoder.stages.settle(sides(size_px))
        self.register_buffer("roi", getattr(method, "roi_", None))

    def forward(self, images: Tensor) -> Tensor:
        if not self.takes_floats:
            images = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        return self._patches.traced(images if self.roi is None else painted(images, self.roi))


class Normalization(nn.Module):
    """Patch vectors normalized as the method does it."""

    def __init__(self, method: PatchMethod, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", method.channel_mean_)
        self.register_buffer("spread", method.channel_spread_)

    def forward(self, vectors: Tensor) -> Tensor:
        return normalized(vectors, self.mean, self.spread, self.channels)


class InspectionGraph(nn.Module):
    """Images -> score float32 (b,), map float32 (b, h, w), is_anomalous bool (b,): what the method predicts, and the
    decision."""

    def __init__(self, method: Method, size_px: Size, threshold: float, takes_floats: bool = False) -> None:
        super().__init__()
        graph = EnsembleGraph if isinstance(method, Ensemble) else PatchGraph
        self.method, self.size_px, self.takes_floats = graph(method, size_px, takes_floats), size_px, takes_floats
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float32))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, maps = self.method(images)
        return scores, maps, scores > self.threshold


class EnsembleGraph(nn.Module):
    """Images -> scores and maps of all members, added up as the method does it."""

    def __init__(self, method: Ensemble, size_px: Size, takes_floats: bool = False) -> None:
        super().__init__()
        self.takes_floats, cpu = takes_floats, torch.device("cpu")
        whole = sides(size_px)
        seen = [scaled(whole, scale) for scale in method.scales]
        members = [PatchGraph(member, size, True) for member, size in zip(method._members, seen, strict=True)]
        self.members = nn.ModuleList(members)
        for number, size in enumerate(seen):
            for name, before, after in zip(("down", "across"), whole, size, strict=True):
                self.register_buffer(f"smaller_{name}{number}", resizing_matrix(before, after, cpu))
                self.register_buffer(f"larger_{name}{number}", resizing_matrix(after, before, cpu))
        self.register_buffer("score_units", method.score_units_)
        self.register_buffer("map_units", method.map_units_)
        self.register_buffer("roi", getattr(method, "roi_", None))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not self.takes_floats:
            images = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.roi is not None:
            images = painted(images, self.roi)
        scores = maps = 0
        for number, member in enumerate(self.members):
            of_member, parts = member(self._resized(images, "smaller", number))
            scores = scores + of_member / self.score_units[number]
            maps = maps + self._resized(parts / self.map_units[number], "larger", number)
        scores, maps = scores / len(self.members), maps / len(self.members)
        return scores, maps if self.roi is None else torch.where(self.roi, maps, 0)

    def _resized(self, images: Tensor, way: str, number: int) -> Tensor:
        down, across = (getattr(self, f"{way}_{name}{number}") for name in ("down", "across"))
        is_same = down.shape[0] == down.shape[1] and across.shape[0] == across.shape[1]
        return images if is_same else down @ images @ across.T


@cache
def resizing_matrix(before: int, after: int, device: torch.device) -> Tensor:
    """What makes a row of `before` numbers one of `after`, by linear interpolation, anti-aliased: (after, before).
    ONNX has no such operator."""
    one_way = F.interpolate(torch.eye(before)[None, None], (after, before), mode="bilinear", antialias=after < before)
    return one_way[0, 0].to(device)


class PatchGraph(nn.Module):
    """Images, as `vectors` takes them -> score float32 (b,), map float32 (b, h, w).

    Both are those of `method.predict` but for rounding. Raises UserError for another method than PaDiM, PatchCore and
    both fused.
    """

    def __init__(self, method: Method, size_px: Size, takes_floats: bool = False) -> None:
        super().__init__()
        self.distances = _distances(method)
        self.vectors = PatchVectors(method, size_px, takes_floats)
        is_normalized = hasattr(method, "channel_mean_")
        self.normalization = Normalization(method, self.vectors.channels) if is_normalized else nn.Identity()
        rows, columns = method.patch_sum_.shape[:2]
        (height, width), cpu = sides(size_px), torch.device("cpu")
        blur = method.blur * counted_share((height, width))
        self.register_buffer("down", upsampling_matrix(rows, height, blur, cpu))
        self.register_buffer("across", upsampling_matrix(columns, width, blur, cpu).T.contiguous())
        weights = torch.ones(rows, columns)
        if method.foreground:
            weights = 1 - method.foreground * background(method.patch_sum_).float()
        inside = method.region.numbers((rows, columns), cpu)
        weights = weights * method.region.spread(torch.ones(1, len(inside)), (rows, columns))[0]
        self.register_buffer("weights", weights)
        self.register_buffer("inside", inside)
        self.highest = highest_count(method.top_share, method.region.pixels((height, width)), (height, width))
        self.image_weight = method.image_weight
        if self.image_weight:
            self.register_buffer("pooled_normals", method.pooled_)
            self.units = method.units_.tolist()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.normalization(self.vectors(images))
        maps = self.down @ (self.distances(vectors) * self.weights) @ self.across
        if self.vectors.roi is not None:
            maps = torch.where(self.vectors.roi, maps, 0)
        scores = maps.flatten(1).topk(self.highest, dim=1).values.mean(1)
        if self.image_weight:
            pooled = vectors.flatten(1, 2)[:, self.inside].mean(1)
            apart = (pooled[:, None] - self.pooled_normals).square().sum(2).sqrt().amin(1)
            scores = scores / self.units[0] + self.image_weight * apart / self.units[1]
        return scores, maps


class GaussianDistances(nn.Module):
    """Mahalanobis distances of patches (b, rows, columns, d) times the weights of positions: (b, rows, columns)."""

    def __init__(self, method: PaDiM) -> None:
        super().__init__()
        if hasattr(method, "cells_"):
            raise UserError(
                "patches of images this large share Gaussians, which is not exported: fit with a smaller --size-px, or "
                "with --method patchcore."
            )
        mean, whitening = method.gaussians_
        self.register_buffer("weights", method.position_weights_)  # (rows, columns)
        self.register_buffer("mean", mean)
        self.register_buffer("inside", None)
        if hasattr(method, "roi_"):  # of positions elsewhere nothing was learned
            grid = method.position_weights_.shape
            inside, last = method.region.numbers(grid, mean.device), torch.full((grid.numel(),), len(mean))
            self.register_buffer("inside", inside)
            self.register_buffer("number_inside", last.index_copy(0, inside, torch.arange(len(inside))))
        dimensions = mean.shape[1]
        bounds = [round(dimensions * stripe / STRIPES) for stripe in range(STRIPES + 1)]
        self.ends = [end for start, end in zip(bounds, bounds[1:], strict=False) if end > start]
        for number, (start, end) in enumerate(zip([0, *self.ends], self.ends, strict=False)):
            # (p, end, end - start), from the right: what a stripe of rows does to the first `end` channels.
            self.register_buffer(f"stripe{number}", whitening[:, start:end, :end].mT.contiguous())

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = vectors.flatten(1, 2)
        if self.inside is not None:
            vectors = vectors[:, self.inside]
        centered = (vectors - self.mean).transpose(0, 1)  # (p, b, d)
        squares = 0
        for number, end in enumerate(self.ends):
            squares = squares + (centered[:, :, :end] @ getattr(self, f"stripe{number}")).square().sum(2)  # (p, b)
        distances = squares.sqrt().T  # (b, p)
        if self.inside is not None:
            distances = torch.cat([distances, torch.zeros_like(distances[:, :1])], 1)[:, self.number_inside]
        return distances.unflatten(1, self.weights.shape) * self.weights


class Projection(nn.Module):
    """Patch vectors along the method's principal axes."""

    def __init__(self, method: PatchCore) -> None:
        super().__init__()
        self.register_buffer("center", method.center_)
        self.register_buffer("axes", method.axes_)

    def forward(self, vectors: Tensor) -> Tensor:
        return (vectors - self.center) @ self.axes


class CoresetDistances(nn.Module):
    """Mean distances of projected patches (b, rows, columns, d) to their nearest in the coreset: (b, rows, columns)."""

    def __init__(self, method: PatchCore) -> None:
        super().__init__()
        self.num_neighbors = min(method.num_neighbors, len(method.coreset_))
        self.num_nearly = min(method.num_neighbors + 1, len(method.coreset_))
        self.register_buffer("coreset", method.coreset_)
        self.register_buffer("spacing", method.spacing_)
        self.evidence = AddedEvidence(method) if hasattr(method, "evidence_weights_") else None
        for number, rows in enumerate(method.coreset_.split(CORESET_ROWS_AT_ONCE)):
            self.register_buffer(f"rows{number}", (-2 * rows.T).contiguous())
            self.register_buffer(f"squares{number}", rows.square().sum(1))
        self.parts = number + 1

    def forward(self, vectors: Tensor) -> Tensor:
        shape = vectors.shape[:3]
        flat = vectors.flatten(0, 2)
        far, rows = [], []
        for number in range(self.parts):
            # Squared distances but for |x|^2, which is the same for all.
            apart = flat @ getattr(self, f"rows{number}") + getattr(self, f"squares{number}")
            closest = apart.topk(min(self.num_nearly, apart.shape[1]), dim=1, largest=False)
            far.append(closest.values)
            rows.append(closest.indices + number * CORESET_ROWS_AT_ONCE)
        nearest = torch.cat(rows, dim=1)
        if self.parts > 1:
            nearest = nearest.gather(1, torch.cat(far, dim=1).topk(self.num_nearly, dim=1, largest=False).indices)
        # Again, by differences: the product above loses digits, and may put the second before the first.
        exact = (self.coreset[nearest] - flat[:, None]).square().sum(2).sqrt()
        distances, order = exact.topk(self.num_neighbors, dim=1, largest=False)
        row = nearest.gather(1, order[:, :1])[:, 0]
        distances = distances.mean(1) / self.spacing[row]
        if self.evidence:
            distances = distances + self.evidence(flat, self.coreset[row])
        return distances.unflatten(0, shape)


class AddedEvidence(nn.Module):
    """What confirmed defects add to the distance of projected patches (n, d), in its units, given the nearest: (n,)."""

    def __init__(self, method: Fused) -> None:
        super().__init__()
        low, high, reach = method.evidence_range_
        self.register_buffer("weights", method.evidence_weights_)
        self.evidence = Evidence(self.weights, low, high, reach / method.fusion_[1].item())

    def forward(self, patches: Tensor, nearest: Tensor) -> Tensor:
        return self.evidence._replace(weights=self.weights).of(inputs_of(patches, nearest))


class FusedDistances(nn.Module):
    """Both, weighted as the method learned to: (b, rows, columns)."""

    def __init__(self, method: Fused) -> None:
        super().__init__()
        self.gaussian_weight, self.nearest_weight = method.fusion_.tolist()
        self.projection = Projection(method)
        self.nearest = CoresetDistances(method)
        self.gaussian = GaussianDistances(method) if self.gaussian_weight else None

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = self.projection(vectors)
        distances = self.nearest_weight * self.nearest(vectors)
        return distances + self.gaussian_weight * self.gaussian(vectors) if self.gaussian else distances


def _distances(method: Method) -> nn.Module:
    if type(method) is Fused:
        return FusedDistances(method)
    if type(method) is PaDiM:
        return GaussianDistances(method)
    if type(method) is PatchCore:
        return nn.Sequential(Projection(method), CoresetDistances(method))
    name = type(method).__name__
    reason = (
        "compares no patches" if not isinstance(method, PatchMethod) else "has a network that is not taken over yet"
    )
    raise UserError(
        f"{name} cannot be exported, it {reason}: fit with --method fused, padim or patchcore, and export that."
    )
