"""How an image is judged, by the score and the map that a method answers with: one threshold, a region's area, or
zones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from baselines.contract.regions import Region, area_score, regions
from baselines.contract.threshold import Threshold, confidence, is_anomalous
from downstream.inspection.alignment import Alignment, Pose
from downstream.inspection.decision import AreaRule
from downstream.inspection.inspection import Inspection
from downstream.inspection.roi import DrawnRoi
from downstream.inspection.zones import (
    ZoneResult,
    ZoneRule,
    relative_map,
    zone_regions,
    zone_results,
    zone_scores,
)
from pretrain.command import UserError
from pretrain.data.channels import Channels
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem
from pretrain.data.size import Size, distorts, is_other

if TYPE_CHECKING:  # importing the contract imports torch, 1.5 s that a run of an exported model does without
    from baselines.contract.method import Prediction


class Answer(NamedTuple):
    """What a method says of one image: a score, a map (h, w) or none, how far the image's mean is from that of the
    nearest good one, and how far two statistics disagree on it."""

    score: float
    anomaly_map: np.ndarray | None
    distance: float | None = None
    disagreement: float | None = None


class Found(NamedTuple):
    """What a rule makes of it: the score that counts, the map as the image lies, above what a pixel of it belongs to a
    region, the regions, and what each zone says."""

    score: float
    anomaly_map: np.ndarray | None
    map_threshold: float | None
    regions: Sequence[Region]
    zones: Sequence[ZoneResult] = ()


def one_by_one(prediction: "Prediction") -> Iterator[Answer]:
    """The answers to the images of a batch."""
    maps = prediction.maps
    distances, disagreements = (getattr(prediction, name, None) for name in ("distances", "disagreements"))
    for position, score in enumerate(prediction.scores):
        anomaly_map = None if maps is None else np.asarray(maps[position])
        others = (None if part is None else float(part[position]) for part in (distances, disagreements))
        yield Answer(float(score), anomaly_map, *others)


class Judge:
    """What an Inspector decides by; its fields are described there."""

    size_px: Size
    threshold: Threshold
    map_threshold: Threshold | None
    minimum_area_px: int
    normal_scores: list[float]
    metadata: dict
    area_rule: AreaRule | None
    drawn_roi: DrawnRoi | None
    zone_rule: ZoneRule | None
    alignment: Alignment | None
    channels: Channels

    @property
    def rule(self) -> AreaRule | ZoneRule | None:
        """What decides in place of `threshold`: one threshold for scores and maps, areas included."""
        return self.area_rule or self.zone_rule

    @property
    def decision(self) -> Threshold:
        """The threshold that scores are compared with."""
        return self.rule.threshold if self.rule else self.threshold

    @property
    def decision_scores(self) -> list[float]:
        """Scores of good images that compare with it."""
        return self.rule.normal_scores if self.rule else self.normal_scores

    @cached_property
    def labels(self) -> np.ndarray:
        """Of each pixel that the method sees the number of its zone, or 1 where it looks; else 0."""
        return self.drawn_roi.labels(self.size_px)

    def decide_at(self, value: float) -> None:
        """Compare scores with another threshold, which a user typed; with zones, another multiple of theirs."""
        typed = self.decision._replace(value=value, why="given on the command line.")
        if self.area_rule:
            self.area_rule = self.area_rule._replace(threshold=typed)
        elif self.zone_rule:
            self.zone_rule = self.zone_rule._replace(threshold=typed)
        else:
            self.threshold = typed

    def judged(
        self, path: Path, image: Decoded, answer: Answer, milliseconds: float, pose: Pose | None
    ) -> Inspection | Problem:
        """The verdict on an image that a method answered for; `pose` is how it lies, of a model that aligns."""
        size, limit = (image.height, image.width), self.decision.value
        by_rule = self._by_area if self.area_rule else self._by_zones if self.zone_rule else self._by_score
        try:
            found = by_rule(answer, size, pose)
        except UserError as error:
            if not self.rule:  # a map of no numbers, which is the method's fault
                raise
            return Problem(path, str(error))  # an image that is smaller than the area
        return Inspection(
            path,
            image.width,
            image.height,
            found.score,
            limit,
            self._is_defective(found, limit),
            confidence=confidence(found.score, limit, self.decision_scores),
            milliseconds=milliseconds,
            is_distorted=self._distorts(image),
            has_other_size=self._is_other(image),
            regions=found.regions,
            map_threshold=found.map_threshold,
            anomaly_map=found.anomaly_map,
            zones=found.zones,
            pose=pose,
            channels=self.channels,
            distance=answer.distance,
            disagreement=answer.disagreement,
        )

    def at_threshold(self, inspection: Inspection, threshold: float) -> Inspection:
        """The same image at another threshold. Regions move with it only where a rule has one threshold for both; else
        they have their own."""
        moved = replace(
            inspection,
            threshold=threshold,
            is_defective=self._is_defective(inspection, threshold),
            confidence=confidence(inspection.score, threshold, self.decision_scores),
        )
        size = (moved.height, moved.width)
        if self.area_rule:
            above = regions(moved.anomaly_map, threshold, self.area_rule.minimum_area_px, size)
            return replace(moved, map_threshold=threshold, regions=above)
        if self.zone_rule:
            rule = self.zone_rule._replace(threshold=self.zone_rule.threshold._replace(value=threshold))
            above = zone_regions(moved.anomaly_map, self.as_it_lies(self.labels, moved.pose), rule, size)
            scores = [zone.score / limit.threshold.value for zone, limit in zip(moved.zones, rule.zones, strict=True)]
            return replace(moved, map_threshold=threshold, regions=above, zones=zone_results(scores, rule))
        return moved

    def _by_score(self, answer: Answer, size: tuple[int, int], pose: Pose | None) -> Found:
        if answer.anomaly_map is None:
            return Found(answer.score, None, None, ())
        anomaly_map, limit = self.as_it_lies(answer.anomaly_map, pose), self.map_threshold
        if limit is None:
            return Found(answer.score, anomaly_map, None, ())
        above = regions(anomaly_map, limit.value, self.minimum_area_px, size)
        return Found(answer.score, anomaly_map, limit.value, above)

    def _by_area(self, answer: Answer, size: tuple[int, int], pose: Pose | None) -> Found:
        area_px, threshold, _ = self.area_rule
        score, anomaly_map = area_score(answer.anomaly_map, area_px, size), self.as_it_lies(answer.anomaly_map, pose)
        return Found(score, anomaly_map, threshold.value, regions(anomaly_map, threshold.value, area_px, size))

    def _by_zones(self, answer: Answer, size: tuple[int, int], pose: Pose | None) -> Found:
        rule = self.zone_rule
        relative = relative_map(answer.anomaly_map, self.labels, rule)
        scores = zone_scores(relative, self.labels, [zone.minimum_area_px for zone in rule.zones], size)
        relative, labels = (self.as_it_lies(values, pose) for values in (relative, self.labels))
        above = zone_regions(relative, labels, rule, size)
        return Found(float(scores.max()), relative, rule.threshold.value, above, zone_results(scores, rule))

    def _is_defective(self, found: Found | Inspection, limit: float) -> bool:
        """Above the limit; where one threshold decides, and small regions are dropped, not without any other."""
        is_dropped = not self.rule and found.map_threshold is not None and self.minimum_area_px and not found.regions
        return bool(is_anomalous(found.score, limit)) and not is_dropped

    def as_it_lies(self, values: np.ndarray, pose: Pose | None) -> np.ndarray:
        """What lies as the method sees an image, as the image lies."""
        return values if pose is None else self.alignment.moved_back(values, pose)

    def _distorts(self, image: Decoded) -> bool:
        """Whether the image is of another shape than those that the method was fitted to; of these a model of before
        0.1 says nothing."""
        aspect = self.metadata.get("aspect")
        return isinstance(aspect, float) and aspect > 0 and distorts(aspect, image.height, image.width)

    @property
    def usual_size(self) -> tuple[int, int] | None:
        """(height, width) of most images that it was fitted to, where it says so."""
        match self.metadata.get("image_size"):
            case [int(width), int(height)] if width > 0 and height > 0:
                return height, width
        return None

    def _is_other(self, image: Decoded) -> bool:
        """Whether it has more or fewer pixels than these."""
        return self.usual_size is not None and is_other(self.usual_size, image.height, image.width)
