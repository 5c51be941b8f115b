"""The k normals that a method refers to: which ones, what is odd among them, and a threshold from them."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from baselines.contract.threshold import (
    MIN_OWN_NORMALS,
    Threshold,
    threshold_from_normals,
    threshold_from_other_categories,
)
from pretrain.command import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.contract.method import Method

# In robust standard deviations of the logarithm. Of 200 references drawn alike, one in a hundred sets has one above it.
SUSPICIOUS_DEVIATIONS = 4.5
MIN_TO_SUSPECT = 5
TURNS = ("none", "flips", "turns", "both")
# Of all places: less is no product, or no background; where a texture fills all, every twentieth place looks apart.
MIN_FOREGROUND = 0.15
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


def kept_of(count: int, hold_out: float) -> int:
    """How many of `count` normals are left to learn from if a share of them, at least one, is held out. Raises
    UserError where none would be."""
    if not 0 <= hold_out < 1:
        raise UserError(f"a share of {hold_out:g} cannot be held out: give one from 0 to below 1, such as 0.1.")
    kept = count - max(1, round(hold_out * count)) if hold_out else count
    if kept < 1:
        raise UserError(f"of {count} good images none is left if {hold_out:g} are held out: give more images.")
    return kept


def draw(count: int, shots: int, seed: int) -> list[int]:
    """Positions of `shots` of `count` normals. Of one seed, fewer shots are a part of more."""
    return sorted(np.random.default_rng([seed, 0x5E]).permutation(count)[:shots].tolist())


def views_of(images: "Tensor", turns: str) -> list["Tensor"]:
    """Images (b, 3, h, w) and what else may be taken for a normal where products lie in any direction: `flips` along
    either side and both, quarter `turns`, or `both`; `none` for the images alone."""
    if turns not in TURNS:
        raise UserError(f"references cannot be turned by {turns!r}; choose from {', '.join(TURNS)}.")
    if turns in ("turns", "both") and images.shape[-1] != images.shape[-2]:
        raise UserError("images that are not square cannot be turned by a quarter: give squares, or --turns flips.")
    flipped = [images.flip(axes) for axes in ((-1,), (-2,))] if turns in ("flips", "both") else []
    half = [images.flip((-1, -2))] if turns != "none" else []
    quarters = [images.rot90(times, (-2, -1)) for times in (1, 3)] if turns in ("turns", "both") else []
    diagonals = [quarter.flip(-1) for quarter in quarters] if turns == "both" else []
    return [images, *flipped, *half, *quarters, *diagonals]


def background(places: "Tensor") -> "Tensor":
    """Which places (rows, columns, d), what normals show there on average, look like the outermost ones: bool (rows,
    columns). None do where nearly all or hardly any would: then the product fills the image."""
    import torch

    is_frame = torch.ones(places.shape[:2], dtype=torch.bool, device=places.device)
    is_frame[1:-1, 1:-1] = False
    frame = places[is_frame]
    distances = torch.cdist(places.flatten(0, 1), frame, compute_mode="donot_use_mm_for_euclid_dist")
    distances[is_frame.flatten()] = distances[is_frame.flatten()].where(
        torch.eye(len(frame), dtype=torch.bool, device=places.device).logical_not(), torch.inf
    )
    nearest = distances.amin(1).view(places.shape[:2])
    is_background = nearest <= nearest[is_frame].quantile(0.95)
    usable = MIN_FOREGROUND < float((~is_background).float().mean()) < 1 - MIN_FOREGROUND
    return is_background if usable else torch.zeros_like(is_background)


def suspicious(scores: Sequence[float]) -> list[int]:
    """Positions of references that score far above the others, each left out in turn: perhaps a defect is among the
    normals. Worst first; of fewer than five, nothing can be said."""
    values = np.log(np.maximum(np.asarray(scores, float), 1e-12))
    if len(values) < MIN_TO_SUSPECT:
        return []
    center = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - center))
    far = np.flatnonzero(values - center > SUSPICIOUS_DEVIATIONS * max(deviation, 1e-9))
    return sorted(far.tolist(), key=lambda position: -values[position])


def own_threshold(
    method: "Method",
    normals: Sequence["Tensor"],
    false_alarm_rate: float,
    calibration: Mapping[str, Sequence["Tensor"]],
    seed: int,
) -> Threshold:
    """For scores of a method that was referred to `normals`: from their scores, each left out in turn, if there are
    enough of them; else from `calibration`, normals of the training categories that have more than as many, scored
    against as many references."""
    scores = method.normal_scores_.cpu().numpy()
    usable = {category: others for category, others in calibration.items() if len(others) > len(normals)}
    if len(scores) >= MIN_OWN_NORMALS or not usable or not method.sees_normals:
        return threshold_from_normals(scores, false_alarm_rate)
    spreads = spread_elsewhere(method, len(normals), usable, seed)
    return threshold_from_other_categories(scale_of(method, normals), spreads, false_alarm_rate)


def spread_elsewhere(
    method: "Method", shots: int, calibration: Mapping[str, Sequence["Tensor"]], seed: int
) -> dict[str, np.ndarray]:
    """Scores of other categories' normals, in units of `scale_of` there, against `shots` references of each."""
    spreads = {}
    for category, normals in calibration.items():
        shuffled = np.random.default_rng([seed, 0x5F]).permutation(len(normals)).tolist()
        chosen, others = shuffled[:shots], shuffled[shots : shots + MAX_CALIBRATION_NORMALS]
        elsewhere = copy.copy(method).refer([normals[i] for i in chosen])
        scores = np.concatenate([part.scores.cpu().numpy() for part in elsewhere.predict(normals[i] for i in others)])
        spreads[category] = scores / scale_of(elsewhere, [normals[i] for i in chosen])
    return spreads


def scale_of(method: "Method", normals: Sequence["Tensor"]) -> float:
    """What normals of a category score about: the mean of its references', each left out in turn. A single one cannot
    be left out; how it scores moved by a hundredth of its side says how finely it is structured."""
    if len(method.normal_scores_):
        return float(method.normal_scores_.mean())
    (only,) = normals
    moved_px = max(1, round(only.shape[-1] / 100))
    moved = [only.roll(step, axis) for step in (-moved_px, moved_px) for axis in (-2, -1)]
    return float(np.concatenate([part.scores.cpu().numpy() for part in method.predict(moved)]).mean())
