"""What a method got right and wrong, as images inside the page: the image with the true defect, and its heat."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.regions import regions
from baselines.contract.threshold import is_anomalous
from downstream.study.cell import Result
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.drawing import outlined

SHOWN_PX, GAP_PX, JPEG_QUALITY = 150, 2, 78
EACH = 3  # images of each outcome
# One takes some 12 kB as text, so the page stays below 15 MB.
MAX_IMAGES = 900
# In the order of the page: the mistakes first.
OUTCOMES = (
    ("false alarms", False, True, "highest scores first"),
    ("missed", True, False, "lowest scores first"),
    ("found", True, True, "the clearest of each kind"),
    ("rightly good", False, False, "spread over the scores"),
)
WHITE = (255, 255, 255)


class Shown(NamedTuple):
    """A image in the gallery, by its position among the test images."""

    outcome: str
    position: int


def chosen(result: Result) -> list[Shown]:
    """Some images of each outcome, by a rule that the page states: nobody picks them."""
    called = is_anomalous(result.scores, result.threshold.value)
    order = np.argsort(result.scores, kind="stable")
    found = []
    for outcome, is_defective, is_called, _ in OUTCOMES:
        members = [int(i) for i in order if result.labels[i] == is_defective and called[i] == is_called]
        if outcome in ("false alarms", "found"):
            members.reverse()
        if outcome == "found":
            members = _one_of_each(members, result.kinds)
        if outcome == "rightly good" and len(members) > EACH:
            members = [members[i] for i in np.linspace(0, len(members) - 1, EACH).round().astype(int)]
        found += [Shown(outcome, i) for i in members[:EACH]]
    return found


def gallery(result: Result, folder: Path, masks: dict[str, str]) -> str:
    """HTML of the images that `chosen` gives; those that are not on this disk any more are named."""
    parts = []
    picked = chosen(result)
    for outcome, _, _, rule in OUTCOMES:
        figures = [_figure(result, shown.position, folder, masks) for shown in picked if shown.outcome == outcome]
        inside = "".join(figures) or '<p class="none">none</p>'
        parts.append(f'<div class="outcome"><h5>{outcome} <span>{rule if figures else ""}</span></h5>'
                     f'<div class="shots">{inside}</div></div>')  # fmt: skip
    return f'<div class="gallery">{"".join(parts)}</div>'


def panel(
    pixels: np.ndarray, anomaly_map: np.ndarray | None, threshold: float | None, mask: np.ndarray | None
) -> Image.Image:
    """The image, with a line around the true defect, beside its heat with contour and boxes: uint8 (h, w, 3) and a
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
    for number, one in enumerate(panels):
        sheet.paste(Image.fromarray(one), (number * (width + GAP_PX), 0))
    return sheet


def _figure(result: Result, position: int, folder: Path, masks: dict[str, str]) -> str:
    path, kind, score = result.paths[position], result.kinds[position], result.scores[position]
    ratio = score / result.threshold.value if result.threshold.value > 0 else None
    words = f"{score:.3g}" + (f", {ratio:.2f} of the threshold" if ratio is not None else "")
    caption = f"<figcaption><b>{escape(kind)}</b> {words}<br><span>{escape(path)}</span></figcaption>"
    try:
        pixels = decode(folder / path, SHOWN_PX).pixels
        mask = read_mask(folder / masks[path], SHOWN_PX) if path in masks else None
    except (Unreadable, OSError):
        return f'<figure class="gone"><div>not on this disk any more</div>{caption}</figure>'
    has_map = result.maps is not None and result.map_threshold is not None
    sheet = panel(pixels, result.map_at(position) if has_map else None,
                  result.map_threshold.value if has_map else None, mask)  # fmt: skip
    data = BytesIO()
    sheet.save(data, "JPEG", quality=JPEG_QUALITY)
    source = base64.b64encode(data.getvalue()).decode()
    size = f'width="{sheet.width}" height="{sheet.height}" loading="lazy" alt="{escape(kind)}"'
    return f'<figure><img {size} src="data:image/jpeg;base64,{source}">{caption}</figure>'


def _one_of_each(positions: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """In turn from each kind, in the order in which they come."""
    by_kind: dict[str, list[int]] = {}
    for position in positions:
        by_kind.setdefault(kinds[position], []).append(position)

    def turns() -> Iterator[int]:
        for turn in range(max(map(len, by_kind.values()), default=0)):
            yield from (members[turn] for members in by_kind.values() if turn < len(members))

    return list(turns())
