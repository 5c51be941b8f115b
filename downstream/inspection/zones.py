"""Several zones of a product, each with its own threshold and minimum area: how they are judged, and by what.

In a zone the score is that of its minimum area (contract/regions.py): the lowest threshold at which the map has no
region of that area there, of one pixel its highest value. An image is defective if in any zone that is above the zone's
threshold. So that one heatmap, one score and one threshold do for all zones, a map is divided by the threshold of the
zone that each pixel lies in: 1 is the threshold everywhere, and an image's score is that of its worst zone.

The false-alarm rate is that of the image, all zones together. Zones with a rate of their own take that part of it, the
others share the rest evenly; by Bonferroni's inequality an image is then above in any zone at most that often.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from baselines.contract.regions import Region, area_score, regions
from baselines.contract.threshold import ROUNDING, Threshold, is_anomalous, threshold_from_normals
from downstream.inspection.roi import Zone
from pretrain.command import UserError

# Below any value of a map, so that nothing outside of a zone belongs to a region; infinity would be refused as a fault.
NOWHERE = np.finfo(np.float32).min
# Where all normals are alike in a zone, such as black: no unit.
MIN_THRESHOLD = 1e-12
# What thresholds of zones come from, in words.
LEFT_OUT = "normals, each left out in turn, "


class ZoneLimit(NamedTuple):
    """By what a zone decides: the least area of a region, in pixels of the image, and the threshold of the map."""

    name: str
    minimum_area_px: int
    threshold: Threshold


class ZoneRule(NamedTuple):
    """All zones, in the order of their numbers in the labels. `threshold` is what an image's score is compared with, in
    multiples of the zones' own; `normal_scores` are such scores of the normals that they come from."""

    zones: list[ZoneLimit]
    threshold: Threshold
    normal_scores: list[float]


class ZoneResult(NamedTuple):
    """What was found in one zone of an image; score and threshold are in units of the map."""

    name: str
    score: float
    threshold: float
    is_defective: bool


def zone_scores(
    anomaly_map: np.ndarray, labels: np.ndarray, areas_px: Sequence[int], original_size: tuple[int, int]
) -> np.ndarray:
    """float32 (zones,): the lowest threshold at which a map (h, w) has no region of the zone's minimum area, whose
    pixels are those of the original image, within the zone. `labels` (h, w) are the zones' numbers, from 1."""
    scores = []
    for number, area_px in enumerate(areas_px, 1):
        inside = labels == number
        values = anomaly_map[inside]
        if area_px > 1:  # a zone that is smaller than its area on this image: its lowest value
            scores.append(area_score(np.where(inside, anomaly_map, values.min()), area_px, original_size))
        else:
            scores.append(values.max())
    return np.array(scores, np.float32)


def relative_map(anomaly_map: np.ndarray, labels: np.ndarray, rule: ZoneRule) -> np.ndarray:
    """A map (h, w) in multiples of the threshold of the zone that each pixel lies in; 0 outside of all."""
    units = np.array([np.inf, *(zone.threshold.value for zone in rule.zones)], np.float32)
    return (anomaly_map / units[labels]).astype(np.float32, copy=False)


def zone_regions(
    relative: np.ndarray, labels: np.ndarray, rule: ZoneRule, original_size: tuple[int, int]
) -> list[Region]:
    """The regions of all zones, of a `relative_map` above the rule's threshold, the highest peak first. A defect across
    a border of zones is a region in each."""
    found = []
    for number, zone in enumerate(rule.zones, 1):
        inside = np.where(labels == number, relative, NOWHERE)
        above = regions(inside, rule.threshold.value, zone.minimum_area_px, original_size)
        found += [region._replace(zone=zone.name) for region in above]
    return sorted(found, key=lambda region: -region.peak)


def zone_results(scores: Sequence[float], rule: ZoneRule) -> list[ZoneResult]:
    """Of `zone_scores` of a `relative_map`."""
    return [
        ZoneResult(
            zone.name,
            float(score) * zone.threshold.value,
            rule.threshold.value * zone.threshold.value,
            bool(is_anomalous(score, rule.threshold.value)),
        )
        for zone, score in zip(rule.zones, scores, strict=True)
    ]


def zone_rule(zones: Sequence[Zone], scores: np.ndarray, false_alarm_rate: float, seen: str = LEFT_OUT) -> ZoneRule:
    """What `zones` decide by, found from `zone_scores` (n, zones) of what was `seen`, as people read it. Raises
    UserError where no rate is left."""
    rates = zone_rates(zones, false_alarm_rate)
    limits = []
    for zone, rate, own in zip(zones, rates, scores.T, strict=True):
        if zone.threshold is None:
            threshold = threshold_from_normals(own, rate)
            threshold = threshold._replace(value=max(threshold.value, MIN_THRESHOLD))
        else:
            above = int(is_anomalous(own, zone.threshold).sum())
            why = f"given with the region of interest; {above} of {len(own)} {seen}are above."
            threshold = Threshold(zone.threshold, above / len(own), len(own), why)
        limits.append(ZoneLimit(zone.name, zone.min_area_px or 0, threshold))
    relative = (scores / np.float32([limit.threshold.value for limit in limits])).max(1)
    above, asked = int(is_anomalous(relative, 1).sum()), sum(filter(None, rates))
    why = (
        f"each of {len(zones)} zones has its own threshold, {division(zones, rates)}; {above} of {len(relative)} "
        f"{seen}are above in one or another."
    )
    return ZoneRule(limits, Threshold(1.0, asked, len(relative), why), relative.tolist())


def zone_rates(zones: Sequence[Zone], false_alarm_rate: float) -> list[float | None]:
    """The false-alarm rate of each zone: its own, or an even part of what those leave of the image's; none where the
    threshold is given. Raises UserError where they leave nothing, or are more."""
    own = sum(zone.false_alarm_rate for zone in zones if zone.false_alarm_rate is not None)
    sharing = sum(zone.false_alarm_rate is None and zone.threshold is None for zone in zones)
    left = false_alarm_rate - own
    if left < -ROUNDING:
        raise UserError(
            f"the zones' own false-alarm rates are {own:g} together, more than the {false_alarm_rate:g} of the whole "
            "image: give a higher --false-alarm-rate, or less to these."
        )
    if sharing and left <= 0:
        raise UserError(
            f"the zones' own false-alarm rates are {own:g} together, which leaves nothing of {false_alarm_rate:g} for "
            f"the other {sharing}: give a higher --false-alarm-rate, or less to these."
        )
    rates = []
    for zone in zones:
        even = None if zone.threshold is not None else left / max(1, sharing)
        rates.append(even if zone.false_alarm_rate is None else zone.false_alarm_rate)
    return rates


def division(zones: Sequence[Zone], rates: Sequence[float | None]) -> str:
    """How the false-alarm rate is divided, for a person."""
    parts = {}
    for zone, rate in zip(zones, rates, strict=True):
        kind = "given" if rate is None else f"{100 * rate:.3g} % false alarms each"
        parts.setdefault(kind, []).append(zone.name)
    return ", ".join(f"{kind} ({', '.join(names)})" for kind, names in parts.items())
