"""From good images that a model did not learn from to a minimum area and the threshold that goes with it.

An area is chosen without a look at any real defect: synthetic anomalies are added to good images that were left out of
the model, the validation images, and of all areas that one is best at which most of them are told from good images.
Each image is inspected at the threshold of the OTHER good ones, so that none helps to set its own threshold.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from baselines.contract.method import Images, Method, as_floats
from baselines.contract.regions import area_scores, region_areas
from baselines.contract.threshold import Threshold, is_anomalous, threshold_from_normals
from downstream.inspection.images import good_images
from downstream.inspection.inspector import Inspector
from pretrain.anomalies import add_anomaly
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, layout_of
from pretrain.data.images import LayoutName
from pretrain.data.layouts import category_folders, has_layout, kept_for_testing
from pretrain.progress import Progress
from pretrain.reading import real_path

THRESHOLDS_SHOWN = 60
# Two areas an octave; from one pixel of the map to an eighth of it, as a defect that covers more needs no area.
AREAS_PER_OCTAVE, MAX_SHARE = 2, 1 / 8
# To place a synthetic anomaly where the model looks; each attempt draws as a step that far ahead would.
MOST_ATTEMPTS, STEPS_AHEAD = 20, 1000


@dataclass(frozen=True)
class ValidationImages:
    """Good images that a model was not fitted to, and its maps of them, float32 (h, w) each. `sizes` are (height,
    width) on disk; `roi`, bool (h, w), is where the model looks, none for everywhere."""

    images: ImageSet
    maps: Sequence[np.ndarray]
    roi: np.ndarray | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(entry.height, entry.width) for entry in self.images.entries]

    @property
    def smallest_px(self) -> int:
        """Pixels of the smallest image: no area may be larger."""
        return min(height * width for height, width in self.sizes)


class AreaRow(NamedTuple):
    """What an area is worth on validation images and synthetic anomalies: see `area_table`."""

    area_px: int
    threshold: float
    true_positive_rate: float
    true_negative_rate: float
    balanced_accuracy: float


class ThresholdRow(NamedTuple):
    """Regions of the validation images above a threshold; mean and std None where there are none."""

    threshold: float
    regions_per_image: float
    mean_area_px: float | None
    std_area_px: float | None


def validation_images(
    model: Inspector, data: Path, category: str | None, layout: LayoutName | None = None
) -> ValidationImages:
    """The good images in `data`, a plain folder or a category's train/good, that the model was not fitted to.

    Raises UserError where none is left, where they are test images, and for a method without maps.
    """
    layout = layout_of(data, layout, model.metadata)
    normals = good_images(
        data, _category(model, data, category, layout), model.size_px, layout=layout, channels=model.channels
    )
    if not kept_for_testing(data).isdisjoint(real_path(record.path) for record in normals.records):
        raise UserError(f"{data} holds test images, which may set no threshold: name good ones for that alone.")
    learned = model.metadata.get("learned_from")
    if learned is None:
        print("warning: the model does not say which images it learned from; take care that it is none of these, or "
              "fit it again", file=sys.stderr)  # fmt: skip
    # By pixels, not by path: a copy under another name was learned from too.
    # What was left out as an outlier is no good image, and may set no threshold.
    outliers = {image["digest"] for image in model.metadata.get("left_out_as_outliers", ())}
    known = outliers.union(learned or ())
    left = normals.subset([i for i, entry in enumerate(normals.entries) if entry.digest.hex() not in known])
    if not len(left):
        raise UserError(
            f"the model learned from all {len(normals)} good images in {data}: name others, or fit it with "
            f"--validation-share 0.1, so that some are left."
        )
    if len(left) < len(normals):
        print(f"{len(normals) - len(left)} of {len(normals)} good images were learned from and are left out here")
    with Progress("validation images", len(left)) as progress:
        maps = []
        for anomaly_map in maps_of(model.method, Images(left)):
            maps.append(anomaly_map)
            progress.advance()
    return ValidationImages(left, maps, model.roi)


def _category(model: Inspector, data: Path, asked: str | None, layout: LayoutName | None) -> str | None:
    """The model's own category where a folder holds several and none was asked for."""
    if asked or not data.is_dir() or not has_layout(data, layout):
        return asked
    return model.category if model.category in category_folders(data, layout) else None


def maps_of(method: Method, images: Sequence[Tensor]) -> Iterator[np.ndarray]:
    """Maps float32 (h, w), one an image. Raises UserError where the method gives none."""
    for prediction in method.predict(images[i] for i in range(len(images))):
        if prediction.maps is None:
            raise UserError(f"{type(method).__name__} gives no maps, so it knows no areas: choose a method that does.")
        yield from prediction.maps.cpu().numpy()


def normal_scores(validation: ValidationImages, areas_px: Sequence[int]) -> np.ndarray:
    """float32 (normals, areas): up to which threshold each image has a region of each area."""
    pairs = zip(validation.maps, validation.sizes, strict=True)
    return np.stack([area_scores(anomaly_map, areas_px, size) for anomaly_map, size in pairs])


def area_threshold(scores: np.ndarray, false_alarm_rate: float | None, area_px: int) -> Threshold:
    """From the area scores (n,) of validation images: the lowest threshold at which none has a region of the area, or,
    with a `false_alarm_rate`, the one at which that share of further normals has one."""
    if false_alarm_rate is not None:
        return threshold_from_normals(scores, false_alarm_rate)
    # An exchangeable further image is above the highest of n with probability 1 / (n + 1).
    count = len(scores)
    why = (
        f"the lowest at which none of {count} validation images has a region of {area_px} px; "
        f"{100 / (count + 1):.3g} % of further ones are expected to have one."
    )
    return Threshold(float(scores.max()), 1 / (count + 1), count, why)


def candidate_areas(validation: ValidationImages) -> list[int]:
    """Areas to choose from, in pixels of the original images, rising."""
    map_pixels = validation.maps[0].size
    octaves = np.log2(max(1, map_pixels * MAX_SHARE))
    counts = 2 ** np.linspace(0, octaves, 1 + round(AREAS_PER_OCTAVE * octaves))
    areas_px = np.rint(counts * validation.smallest_px / map_pixels).clip(1, validation.smallest_px)
    return sorted(set(areas_px.astype(int).tolist()))


def synthetic(validation: ValidationImages, count: int, seed: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    """At least `count` copies of the validation images with a synthetic anomaly: which image, the copy float32
    (3, h, w), and where the anomaly is, bool (h, w). Every image has as many."""
    images = Images(validation.images)
    for step in range(-(-count // len(images))):
        for own in range(len(images)):
            # Anomalies borrow their texture from another image, each round from a further one.
            image, source = (as_floats(images[i])[None] for i in (own, (own + 1 + step) % len(images)))
            for attempt in range(MOST_ATTEMPTS):
                anomalous, masks = add_anomaly(image, source, seed, step + attempt * STEPS_AHEAD, [own])
                mask = masks[0].numpy()
                if validation.roi is None or (mask & validation.roi).any():  # else the model cannot see it
                    break
            yield own, anomalous[0], mask


def synthetic_scores(
    method: Method, validation: ValidationImages, areas_px: Sequence[int], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Area scores of synthetic anomalies, float32 (copies, areas), and of which image each is a copy, int (copies,)."""
    total = len(validation.maps) * -(-count // len(validation.maps))
    scores, owners, copies = [], [], synthetic(validation, count, seed)
    with Progress("synthetic anomalies", total) as progress:
        while batch := list(islice(copies, method.batch_size)):
            for (own, _, _), anomaly_map in zip(batch, maps_of(method, [copy for _, copy, _ in batch]), strict=True):
                scores.append(area_scores(anomaly_map, areas_px, validation.sizes[own]))
                owners.append(own)
                progress.advance()
    return np.stack(scores), np.array(owners)


def area_table(
    areas_px: Sequence[int],
    normals: np.ndarray,
    defective: np.ndarray,
    owners: np.ndarray,
    false_alarm_rate: float | None,
) -> list[AreaRow]:
    """A row an area, from scores of normals (n, areas) and of synthetic anomalies (m, areas), made of images `owners`.

    Both a normal and its copies are inspected at the threshold of all other normals. Raises UserError with fewer than
    two.
    """
    if len(normals) < 2:
        raise UserError(
            f"{len(normals)} validation image cannot say what an area is worth, since each is inspected at the "
            f"threshold of the others: leave out 2 or more, better 20."
        )
    others = [np.delete(np.arange(len(normals)), own) for own in range(len(normals))]
    rows = []
    for column, area_px in enumerate(areas_px):
        own_scores, copies = normals[:, column], defective[:, column]
        limits = np.array([area_threshold(own_scores[rest], false_alarm_rate, area_px).value for rest in others])
        detected = np.mean([is_anomalous(copy, limits[own]) for copy, own in zip(copies, owners, strict=True)])
        passed = 1 - np.mean([is_anomalous(score, limit) for score, limit in zip(own_scores, limits, strict=True)])
        threshold = area_threshold(own_scores, false_alarm_rate, area_px).value
        rows.append(AreaRow(area_px, threshold, float(detected), float(passed), float((detected + passed) / 2)))
    return rows


def recommended(rows: Sequence[AreaRow]) -> AreaRow:
    """The row of the best balanced accuracy; of equal ones the smallest area, which misses no small defect."""
    return max(rows, key=lambda row: (row.balanced_accuracy, -row.area_px))


def threshold_rows(validation: ValidationImages) -> tuple[list[ThresholdRow], list[np.ndarray]]:
    """How many regions there are and how large they are at rising thresholds, from the lowest value of all maps to the
    highest; and their areas at each, int (regions,)."""
    lowest = min(anomaly_map.min() for anomaly_map in validation.maps)
    highest = max(anomaly_map.max() for anomaly_map in validation.maps)
    rows, areas = [], []
    for threshold in np.linspace(lowest, highest, THRESHOLDS_SHOWN, endpoint=False):
        pairs = zip(validation.maps, validation.sizes, strict=True)
        pooled = np.concatenate([region_areas(anomaly_map, threshold, size) for anomaly_map, size in pairs])
        mean, std = (float(pooled.mean()), float(pooled.std())) if len(pooled) else (None, None)
        rows.append(ThresholdRow(float(threshold), len(pooled) / len(validation.maps), mean, std))
        areas.append(pooled)
    return rows, areas


def print_areas(rows: Sequence[AreaRow], best: AreaRow) -> None:
    """A line for each area."""
    print(f"{'area px':>10} {'threshold':>10} {'synthetic found':>16} {'good passed':>12} {'balanced':>9}")
    for row in rows:
        mark = "  <- recommended" if row is best else ""
        print(f"{row.area_px:>10} {row.threshold:>10.4g} {row.true_positive_rate:>16.3f} "
              f"{row.true_negative_rate:>12.3f} {row.balanced_accuracy:>9.3f}{mark}")  # fmt: skip
