"""What a method got right and wrong, as images inside the page: the image with the true defect, and its heatmap."""

import base64
from collections.abc import Sequence
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.regions import regions
from baselines.contract.threshold import is_anomalous
from downstream.study.cell import CellResult
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.drawing import outlined

SHOWN_PX, GAP_PX, JPEG_QUALITY = 150, 2, 78
SHOWN_EACH = 3  # images of each outcome
# One takes some 12 kB as text, so the page stays below 15 MB.
MAX_IMAGES = 900
WHITE = (255, 255, 255)


class Outcome(NamedTuple):
    """A way in which a decision can be right or wrong, and the rule by which its images are chosen."""

    name: str
    is_defective: bool
    is_called: bool
    rule: str


# In the order of the page: the mistakes first.
OUTCOMES = (
    Outcome("false alarms", False, True, "highest scores first"),
    Outcome("missed", True, False, "lowest scores first"),
    Outcome("found", True, True, "the clearest of each type of defect"),
    Outcome("rightly good", False, False, "spread over the scores"),
)


class ShownImage(NamedTuple):
    """An image in the gallery. `source` is a data URL, none where the image is not on this disk any more; `ratio` is
    score / threshold, none where the threshold is no unit."""

    path: str
    defect: str
    score: float
    ratio: float | None
    source: str | None
    width: int
    height: int


def gallery(result: CellResult, folder: Path, masks: dict[str, str]) -> list[tuple[Outcome, list[ShownImage]]]:
    """The images that `chosen_positions` gives, by outcome."""
    chosen = chosen_positions(result)
    return [
        (outcome, [_shown(result, position, folder, masks) for position in chosen[outcome.name]])
        for outcome in OUTCOMES
    ]


def chosen_positions(result: CellResult) -> dict[str, list[int]]:
    """Test images of each outcome, chosen by a rule that the page states: nobody picks them."""
    is_called = is_anomalous(result.scores, result.threshold.value)
    order = np.argsort(result.scores, kind="stable")
    chosen = {}
    for name, is_defective, called, _ in OUTCOMES:
        members = [int(i) for i in order if result.labels[i] == is_defective and is_called[i] == called]
        if name in ("false alarms", "found"):
            members.reverse()
        if name == "found":
            members = _defects_in_turn(members, result.defects)
        if name == "rightly good" and len(members) > SHOWN_EACH:
            members = [members[i] for i in np.linspace(0, len(members) - 1, SHOWN_EACH).round().astype(int)]
        chosen[name] = members[:SHOWN_EACH]
    return chosen


def panel(
    pixels: np.ndarray, anomaly_map: np.ndarray | None, threshold: float | None, mask: np.ndarray | None
) -> Image.Image:
    """The image, with a line around the true defect, beside its heatmap with contour and boxes: uint8 (h, w, 3) and a
    map of any size."""
    panels = [draw_regions(pixels, (), mask)]
    if anomaly_map is not None and threshold is not None:
        size = pixels.shape[1::-1]
        large = np.asarray(Image.fromarray(anomaly_map.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        hot = outlined(
            draw_heatmap(pixels, large, threshold), large > threshold, distance_px=0, width_px=1, color=WHITE
        )
        panels.append(draw_regions(hot, regions(large, threshold)))
    height, width = pixels.shape[:2]
    sheet = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height), WHITE)
    for column, shown in enumerate(panels):
        sheet.paste(Image.fromarray(shown), (column * (width + GAP_PX), 0))
    return sheet


def _shown(result: CellResult, position: int, folder: Path, masks: dict[str, str]) -> ShownImage:
    path, score, threshold = result.paths[position], float(result.scores[position]), result.threshold.value
    ratio = score / threshold if threshold > 0 else None
    missing = ShownImage(path, result.defects[position], score, ratio, None, 0, 0)
    try:
        pixels = decode(folder / path, SHOWN_PX).pixels
        mask = read_mask(folder / masks[path], SHOWN_PX) if path in masks else None
    except (Unreadable, OSError):
        return missing
    has_map = result.maps is not None and result.map_threshold is not None
    sheet = panel(pixels, result.map_at(position) if has_map else None,
                  result.map_threshold.value if has_map else None, mask)  # fmt: skip
    data = BytesIO()
    sheet.save(data, "JPEG", quality=JPEG_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return missing._replace(source=source, width=sheet.width, height=sheet.height)


def _defects_in_turn(positions: Sequence[int], defects: Sequence[str]) -> list[int]:
    """In turn from each type of defect, in the order in which they come."""
    by_defect: dict[str, list[int]] = {}
    for position in positions:
        by_defect.setdefault(defects[position], []).append(position)
    return [position for turn in zip_longest(*by_defect.values()) for position in turn if position is not None]
