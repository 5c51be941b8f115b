"""How a model decides: what stands in its `inspector.json`, with every type and number checked."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from baselines.contract.threshold import Threshold
from downstream.inspection.alignment import Alignment
from downstream.inspection.roi import DrawnRoi
from downstream.inspection.zones import ZoneLimit, ZoneRule
from pretrain.data.channels import PLAIN, Channels
from pretrain.data.size import Size

# Of pixels; nothing that is counted here is above.
MAX_NUMBER = 2**40


class AreaRule(NamedTuple):
    """An image is defective if a region of at least `minimum_area_px`, of the original image, is above `threshold`.

    Its score is the threshold up to which that is so (`regions.area_score`); `normal_scores` are those of the normals
    that the threshold comes from.
    """

    minimum_area_px: int
    threshold: Threshold
    normal_scores: list[float]


def decision_from(
    category: str,
    size_px: int | Sequence[int],
    threshold: dict,
    map_threshold: dict | None = None,
    minimum_area_px: int = 0,
    normal_scores: Sequence[float] = (),
    metadata: dict | None = None,
    area_rule: dict | None = None,
    drawn_roi: dict | None = None,
    zone_rule: dict | None = None,
    alignment: dict | None = None,
    channels: list | None = None,
) -> dict:
    """What stands in `inspector.json`, as an Inspector takes it. Raises ValueError or TypeError for other types and for
    numbers that cannot be."""
    for name, value, kind in (("category", category, str), ("metadata", metadata or {}, dict)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r:.40}")
    drawn = None if drawn_roi is None else DrawnRoi.from_json(drawn_roi)
    rule = None if zone_rule is None else _as_zone_rule(**zone_rule)
    if [zone.name for zone in (drawn.zones if drawn else ())] != [zone.name for zone in (rule.zones if rule else ())]:
        raise ValueError("the zones that were drawn are not those of the rule")
    if drawn and drawn.image_size is None:
        raise ValueError("the region of interest does not say what size of image it was drawn on")
    if drawn and {*range(1, 1 + len(drawn.zones))} - {*drawn.labels(_as_size(size_px)).flat}:
        raise ValueError("a zone lies outside of the image")
    return {
        "category": category,
        "size_px": _as_size(size_px),
        "threshold": _as_threshold(threshold),
        "map_threshold": None if map_threshold is None else _as_threshold(map_threshold),
        "minimum_area_px": _whole_number("minimum_area_px", minimum_area_px, 0),
        "normal_scores": _finite_numbers(normal_scores),
        "metadata": metadata or {},
        "area_rule": None if area_rule is None else _as_area_rule(**area_rule),
        "drawn_roi": drawn,
        "zone_rule": rule,
        "alignment": None if alignment is None else Alignment.from_json(alignment),
        "channels": PLAIN if channels is None else Channels.from_json(channels),
    }


def _as_size(stored: object) -> Size:
    if not isinstance(stored, list):
        return _whole_number("size_px", stored, 1)
    height, width = (_whole_number("size_px", side, 1) for side in stored)
    return height, width


def _as_area_rule(minimum_area_px: int, threshold: dict, normal_scores: Sequence[float]) -> AreaRule:
    minimum_area_px = _whole_number("minimum_area_px", minimum_area_px, 0)
    return AreaRule(minimum_area_px, _as_threshold(threshold), _finite_numbers(normal_scores))


def _as_zone_rule(zones: Sequence[dict], threshold: dict, normal_scores: Sequence[float]) -> ZoneRule:
    limits = []
    for zone in zones:
        limit = ZoneLimit(**zone)
        area_px, found = _whole_number("minimum_area_px", limit.minimum_area_px, 0), _as_threshold(limit.threshold)
        if not found.value > 0:
            raise ValueError(f"a zone's threshold is {found.value}")
        limits.append(ZoneLimit(str(limit.name), area_px, found))
    return ZoneRule(limits, _as_threshold(threshold), _finite_numbers(normal_scores))


def _as_threshold(stored: dict) -> Threshold:
    threshold = Threshold(**stored)
    _finite_numbers([threshold.value, threshold.false_alarm_rate])
    return threshold._replace(count=_whole_number("count", threshold.count, 0), why=str(threshold.why))


def _whole_number(name: str, value: object, lowest: int) -> int:
    if type(value) is not int or not lowest <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is {value!r:.40}")
    return value


def _finite_numbers(values: object) -> list[float]:
    if not isinstance(values, list | tuple) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{values!r:.40} are no numbers")
    if not all(abs(value) <= sys.float_info.max for value in values):
        raise ValueError("a number is not finite")
    return list(values)
