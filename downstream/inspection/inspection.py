"""What an inspector says of one image: the verdict, where the defect is, and how it can be shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from baselines.contract.regions import Region
from downstream.inspection.alignment import Aligned, Pose, as_answered
from downstream.inspection.overlay import overlay
from downstream.inspection.zones import ZoneResult
from pretrain.data.arrays import opened
from pretrain.data.channels import PLAIN, Channels

if TYPE_CHECKING:
    from PIL import Image

SHOWN_PX = 420


@dataclass(frozen=True)
class Inspection:
    """The verdict on one image, `width` x `height` pixels on disk.

    `confidence` is from 0.5 to 1. `is_distorted` where it was drawn out of shape to what the method sees,
    `has_other_size` where it has more or fewer pixels than the images that the model was fitted to. `regions` are
    in pixels of the original image; `anomaly_map` float32 (h, w), of the size that the method sees, covers all of it,
    or is none where the method gives no maps. Above `map_threshold` a pixel belongs to a region. `zones` is what each
    zone of a model with zones says: then map and score are in multiples of the zones' thresholds. `pose` is how the
    product lies in the image, of a model that aligns; the map and regions are those of the image as it lies. `given` is
    the image where it was no file, `channels` how it was read. `distance` is that of the image as a whole to the
    nearest good one, where the method comes by it: what a line's drift is seen by. `disagreement` is how far two
    statistics of one method lie apart on it.
    """

    path: Path
    width: int
    height: int
    score: float
    threshold: float
    is_defective: bool
    confidence: float
    milliseconds: float
    is_distorted: bool = False
    regions: Sequence[Region] = ()
    map_threshold: float | None = None
    anomaly_map: np.ndarray | None = field(default=None, repr=False)
    zones: Sequence[ZoneResult] = ()
    pose: Pose | None = None
    has_other_size: bool = False
    channels: Channels = field(default=PLAIN, repr=False)
    distance: float | None = field(default=None, repr=False)
    disagreement: float | None = field(default=None, repr=False)
    given: object = field(default=None, repr=False, compare=False)

    @property
    def alignment(self) -> Aligned | None:
        """The pose in pixels of the original image."""
        return None if self.pose is None else as_answered(self.pose, self.height, self.width)

    @property
    def defective_zones(self) -> list[str]:
        """The names of the zones that make it defective."""
        return [zone.name for zone in self.zones if zone.is_defective]

    @property
    def is_not_aligned(self) -> bool:
        """Whether the model aligns images, and could not align this one."""
        return self.pose is not None and not self.pose.is_aligned

    @property
    def verdict(self) -> str:
        """In words, on one line or two."""
        ratio = self.score / self.threshold if self.threshold > 0 else float("nan")
        verdict = f"{'DEFECTIVE' if self.is_defective else 'good'}: {ratio:.2f} times the threshold"
        more = [f"in {', '.join(self.defective_zones)}"] if self.defective_zones else []
        more += ["not aligned: judged as it lies"] if self.is_not_aligned else []
        return "\n".join([verdict, "; ".join(more)]) if more else verdict

    def overlay(self, mask: np.ndarray | None = None, outlines: Sequence[tuple[str, np.ndarray]] = ()) -> "Image.Image":
        """The image, of several lights the first, beside its heatmap, with its regions and the verdict; a line around
        the true defect, where a bool `mask` says it, and around `outlines`, such as an Inspector's."""
        pixels = opened(self.path if self.given is None else self.given, channels=self.channels).pixels[:, :, :3]
        return overlay(
            pixels, self.anomaly_map, self.map_threshold, self.regions, self.verdict, self.is_defective, mask, SHOWN_PX,
            outlines,
        )  # fmt: skip

    def to_dict(self) -> dict:
        """All but the image and its map, as plain JSON."""
        separate = ("anomaly_map", "regions", "zones", "pose", "channels", "distance", "disagreement", "given")
        metadata = {name: value for name, value in vars(self).items() if name not in separate}
        found: dict[str, object] = {"regions": [region.as_json() for region in self.regions]}
        if self.zones:
            found["zones"] = [zone._asdict() for zone in self.zones]
        if self.alignment:
            found["alignment"] = self.alignment._asdict()
        return {**metadata, "path": str(self.path), **found}
