"""The reference images that a method refers to: which ones, what is odd among them, and a threshold from them."""

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import Images, Method
from baselines.contract.threshold import (
    MIN_OWN_NORMALS,
    Threshold,
    threshold_from_normals,
    threshold_from_other_categories,
)
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet

# In robust standard deviations of the logarithm. Of 200 references drawn alike, one in a hundred sets has one above it.
SUSPICIOUS_DEVIATIONS = 4.5
MIN_TO_SUSPECT = 5
REFERENCE_VIEWS = ("none", "flips", "rotations", "both")
# Of all positions: less is no product, or no background; where a texture fills all, one in twenty looks apart.
MIN_FOREGROUND = 0.15
# Positions that are compared with the outermost ones: those of 1024 px, one every 8 px.
MAX_COMPARED = 2**14
ONLY_ONE = (
    "what the only good image scores when it is moved a little: it says nothing of how products differ, so most good "
    "ones may be above. Give more, 8 if you can."
)
# Normals of a training category that are scored to learn how scores spread there.
MAX_CALIBRATION_NORMALS = 40


def shots_of(text: str | int, count: int) -> int:
    """How many of `count` normals `text` asks for: a number, or `all`. Raises UserError where that cannot be."""
    if text == "all":
        return count
    if not str(text).isdigit() or int(text) < 1:
        raise UserError(f"--shots {text} is no number of references: give 1, 2, 4, 8, 16, another number, or all.")
    if int(text) > count:
        raise UserError(f"{text} references were asked for, but there are {count} normals: ask for fewer, or for all.")
    return int(text)


def fitting_count(count: int, validation_share: float) -> int:
    """How many of `count` normals are left to fit to if a share of them, at least one, is kept for validation. Raises
    UserError where none would be."""
    if not 0 <= validation_share < 1:
        raise UserError(
            f"--validation-share {validation_share:g} cannot be: give 0 or more and less than 1, such as 0.1."
        )
    fitted = count - max(1, round(validation_share * count)) if validation_share else count
    if fitted < 1:
        raise UserError(
            f"of {count} good images none is left to fit to with --validation-share {validation_share:g}: "
            "give more images."
        )
    return fitted


def draw(count: int, shots: int, seed: int) -> list[int]:
    """Positions of `shots` of `count` normals. Of one seed, fewer shots are a part of more."""
    return sorted(np.random.default_rng([seed, 0x5E]).permutation(count)[:shots].tolist())


def views_of(images: Tensor, reference_views: str) -> list[Tensor]:
    """Images (b, 3, h, w) and what else may be taken for a normal where products lie in any direction: `flips` along
    either side and both, `rotations` by quarters, or `both`; `none` for the images alone."""
    if reference_views not in REFERENCE_VIEWS:
        raise UserError(f"there are no reference_views {reference_views!r}; choose from {', '.join(REFERENCE_VIEWS)}.")
    flips, rotations = reference_views in ("flips", "both"), reference_views in ("rotations", "both")
    if rotations and images.shape[-1] != images.shape[-2]:
        raise UserError(
            "images that are not square cannot be rotated by a quarter: give squares, or reference_views=flips."
        )
    flipped = [images.flip(axes) for axes in ((-1,), (-2,))] if flips else []
    half = [images.flip((-1, -2))] if flips or rotations else []
    quarters = [images.rot90(times, (-2, -1)) for times in (1, 3)] if rotations else []
    diagonals = [quarter.flip(-1) for quarter in quarters] if flips and rotations else []
    return [images, *flipped, *half, *quarters, *diagonals]


def background(mean_patches: Tensor) -> Tensor:
    """Which positions look like the outermost ones, by the mean patches of normals (rows, columns, d): bool (rows,
    columns). None do where nearly all or hardly any would: then the product fills the image. Of a large grid, means of
    neighboring patches are compared: each with all outermost ones would take tens of gigabytes."""
    grid = mean_patches.shape[:2]
    if grid.numel() > MAX_COMPARED:
        share = math.sqrt(MAX_COMPARED / grid.numel())
        coarse = tuple(max(1, int(side * share)) for side in grid)
        means = F.adaptive_avg_pool2d(mean_patches.permute(2, 0, 1), coarse).permute(1, 2, 0)
        return F.interpolate(background(means)[None, None].float(), tuple(grid))[0, 0] > 0
    is_frame = torch.ones(grid, dtype=torch.bool, device=mean_patches.device)
    is_frame[1:-1, 1:-1] = False
    frame = mean_patches[is_frame]
    distances = torch.cdist(mean_patches.flatten(0, 1), frame, compute_mode="donot_use_mm_for_euclid_dist")
    # A patch of the frame is compared with the others of the frame: with itself it always agrees.
    distances[is_frame.flatten()] = distances[is_frame.flatten()].where(
        torch.eye(len(frame), dtype=torch.bool, device=mean_patches.device).logical_not(), torch.inf
    )
    nearest = distances.amin(1).view(grid)
    is_background = nearest <= nearest[is_frame].quantile(0.95)
    foreground = (~is_background).float().mean()
    return is_background & (foreground > MIN_FOREGROUND) & (foreground < 1 - MIN_FOREGROUND)


def robust_deviations(scores: Sequence[float]) -> np.ndarray:
    """How far each score lies above the median, in robust standard deviations of the logarithm."""
    values, median, deviation = _robust(scores)
    return (values - median) / deviation


def robust_limit(scores: Sequence[float], deviations: float) -> float:
    """The score that lies so many of these deviations above the median."""
    _, median, deviation = _robust(scores)
    return float(np.exp(median + deviations * deviation))


def _robust(scores: Sequence[float]) -> tuple[np.ndarray, float, float]:
    """Logarithms, their median and their robust deviation: scores of normals are about log-normal, so that the
    logarithms have one deviation whatever the method's unit."""
    values = np.log(np.maximum(np.asarray(scores, float), 1e-12))
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))  # of a normal distribution, the standard one
    return values, median, max(deviation, 1e-9)


def suspicious(scores: Sequence[float], least: float = SUSPICIOUS_DEVIATIONS) -> list[int]:
    """Positions of references that score far above the others, each left out in turn: perhaps a defect is among the
    normals. Worst first; of fewer than five, nothing can be said."""
    if len(scores) < MIN_TO_SUSPECT:
        return []
    deviations = robust_deviations(scores)
    return sorted(np.flatnonzero(deviations > least).tolist(), key=lambda position: -deviations[position])


def own_threshold(
    method: Method,
    normals: Sequence[Tensor],
    false_alarm_rate: float,
    calibration: Mapping[str, Sequence[Tensor]],
    seed: int,
) -> Threshold:
    """For scores of a method that was referred to `normals`: from their scores, each left out in turn, if there are
    enough of them; else from `calibration`, normals of the training categories that have more than as many, scored
    against as many references. Without any, a single normal gives one by how it scores when it is moved."""
    scores = method.normal_scores_.cpu().numpy()
    usable = {category: others for category, others in calibration.items() if len(others) > len(normals)}
    if not len(scores) and not usable and method.sees_normals and len(normals) == 1:
        alone = threshold_from_normals(scores_moved(method, normals[0]), false_alarm_rate)
        return alone._replace(count=1, why=ONLY_ONE)
    if len(scores) >= MIN_OWN_NORMALS or not usable or not method.sees_normals:
        return threshold_from_normals(scores, false_alarm_rate)
    if not (scale := scale_of(method, normals)):
        named = "the only good image scores" if len(normals) == 1 else f"the {len(normals)} good images score"
        raise UserError(
            f"{named} 0 by {type(method).__name__}, which tells no unit for what others score: give {MIN_OWN_NORMALS} "
            "good images, which need none."
        )
    spreads = spread_elsewhere(method, len(normals), usable, seed)
    return threshold_from_other_categories(scale, spreads, false_alarm_rate)


def spread_elsewhere(
    method: Method, shots: int, calibration: Mapping[str, Sequence[Tensor]], seed: int
) -> dict[str, np.ndarray]:
    """Scores of other categories' normals, in units of `scale_of` there, against `shots` references of each; none of
    those where these score 0."""
    spreads = {}
    for category, normals in calibration.items():
        shuffled = np.random.default_rng([seed, 0x5F]).permutation(len(normals)).tolist()
        chosen, others = shuffled[:shots], shuffled[shots : shots + MAX_CALIBRATION_NORMALS]
        elsewhere = copy.copy(method)
        if hasattr(elsewhere, "look_within"):  # a region that was drawn on this product lies nowhere on another
            elsewhere.look_within(None)
        elsewhere.refer([normals[i] for i in chosen])
        if scale := scale_of(elsewhere, [normals[i] for i in chosen]):
            scored = elsewhere.predict(normals[i] for i in others)
            spreads[category] = np.concatenate([part.scores.cpu().numpy() for part in scored]) / scale
    return spreads


def scale_of(method: Method, normals: Sequence[Tensor]) -> float:
    """What normals of a category score about: the mean of its references', each left out in turn. A single one cannot
    be left out; how it scores moved by a hundredth of its side says how finely it is structured."""
    if len(method.normal_scores_):
        return float(method.normal_scores_.mean())
    (only,) = normals
    return float(scores_moved(method, only).mean())


def scores_moved(method: Method, image: Tensor) -> np.ndarray:
    """Scores (4,) of an image that was moved by a hundredth of its side."""
    return np.concatenate([part.scores.cpu().numpy() for part in method.predict(moved(image))])


def moved(image: Tensor) -> list[Tensor]:
    """An image moved by a hundredth of its side: up, down, left, right."""
    moved_px = max(1, round(image.shape[-1] / 100))
    return [image.roll(step, axis) for step in (-moved_px, moved_px) for axis in (-2, -1)]


def calibration_normals(others: ImageSet | None) -> dict[str, Images]:
    """Good images of other categories, by category."""
    if others is None:
        return {}
    good = others.subset([i for i, record in enumerate(others.records) if not record.is_anomaly])
    return {category: Images(good.of(category)) for category in good.categories}
