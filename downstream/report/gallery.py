"""What a method got right and wrong, as images inside the page: the image with the true defect, and its heatmap."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.regions import regions
from baselines.contract.threshold import is_anomalous
from downstream.report.rows import key_of, mean_figure, row_title, study_title, without_controls
from downstream.study.cell import CellResult
from downstream.study.record import Results
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.drawing import Thumbnail, contact_sheet, data_url, outlined

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


def gallery_sheet(summary: dict, results: Results) -> Image.Image:
    """The row with the highest image AUROC that has maps: of each category the first image of each outcome, and its
    heatmap."""
    ranked = sorted(
        without_controls(summary["rows"]) or summary["rows"],
        key=lambda row: (not _has_maps(results[key_of(row)]), -(mean_figure(row, "auroc") or 0)),
    )
    rows = []
    for category, by_seed in results[key_of(ranked[0])].items():
        result, shown = by_seed[min(by_seed)], []
        for outcome, positions in chosen_positions(result).items():
            opened = _opened(result, positions[0], Path(summary["folder"]), summary["masks"]) if positions else None
            shown += [Thumbnail(pixels, outcome) for pixels in (drawn(*opened) if opened else ())]
        rows.append((category, shown))
    return contact_sheet(rows, f"{row_title(ranked[0])}: {study_title(summary)}", thumbnail_px=SHOWN_PX)


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


def drawn(
    pixels: np.ndarray, anomaly_map: np.ndarray | None, threshold: float | None, mask: np.ndarray | None
) -> list[np.ndarray]:
    """The image, with a line around the true defect, and its heatmap with contour and boxes: uint8 (h, w, 3) of these
    and a map of any size."""
    panels = [draw_regions(pixels, (), mask)]
    if anomaly_map is not None and threshold is not None:
        height, width = pixels.shape[:2]
        as_image = Image.fromarray(anomaly_map.astype(np.float32))
        large = np.asarray(as_image.resize((width, height), Image.Resampling.BILINEAR))
        hot = outlined(
            draw_heatmap(pixels, large, threshold), large > threshold, distance_px=0, width_px=1, color=WHITE
        )
        panels.append(draw_regions(hot, regions(large, threshold)))
    return panels


def panel(
    pixels: np.ndarray, anomaly_map: np.ndarray | None, threshold: float | None, mask: np.ndarray | None
) -> Image.Image:
    """The image beside its heatmap."""
    panels = drawn(pixels, anomaly_map, threshold, mask)
    height, width = pixels.shape[:2]
    sheet = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height), WHITE)
    for column, shown in enumerate(panels):
        sheet.paste(Image.fromarray(shown), (column * (width + GAP_PX), 0))
    return sheet


def _shown(result: CellResult, position: int, folder: Path, masks: dict[str, str]) -> ShownImage:
    path, score, threshold = result.paths[position], float(result.scores[position]), result.threshold.value
    ratio = score / threshold if threshold > 0 else None
    missing = ShownImage(path, result.defects[position], score, ratio, None, 0, 0)
    opened = _opened(result, position, folder, masks)
    if opened is None:
        return missing
    sheet = panel(*opened)
    return missing._replace(source=data_url(sheet, JPEG_QUALITY), width=sheet.width, height=sheet.height)


def _has_maps(by_category: Mapping[str, Mapping[int, CellResult]]) -> bool:
    return any(result.maps is not None for by_seed in by_category.values() for result in by_seed.values())


def _opened(
    result: CellResult, position: int, folder: Path, masks: dict[str, str]
) -> tuple[np.ndarray, np.ndarray | None, float | None, np.ndarray | None] | None:
    """What `drawn` takes of an image; none where it is not on this disk any more."""
    path = result.paths[position]
    try:
        pixels = decode(folder / path, SHOWN_PX).pixels
        mask = read_mask(folder / masks[path], SHOWN_PX) if path in masks else None
    except (Unreadable, OSError):
        return None
    if result.maps is None or result.map_threshold is None:
        return pixels, None, None, mask
    return pixels, result.map_at(position), result.map_threshold.value, mask


def _defects_in_turn(positions: Sequence[int], defects: Sequence[str]) -> list[int]:
    """In turn from each type of defect, in the order in which they come."""
    by_defect: dict[str, list[int]] = {}
    for position in positions:
        by_defect.setdefault(defects[position], []).append(position)
    return [position for turn in zip_longest(*by_defect.values()) for position in turn if position is not None]
