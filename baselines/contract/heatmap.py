"""An anomaly map drawn over its image, on one scale for all images that is tied to the threshold, and boxes.

A map that is scaled for each image alone paints good products red. Here the scale is the threshold: nothing is
colored below half of it, the color turns from violet to orange at the threshold itself, and twice the threshold is
the brightest, in every image of a model.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from baselines.contract.regions import Region
from pretrain.drawing import DEFECT, outlined

# Multiple of the threshold; color; how much of the image it covers.
COLOR_STOPS = (
    (0.5, (60, 20, 130), 0.0),
    (1.0, (160, 35, 130), 0.35),
    (1.001, (235, 95, 50), 0.5),
    (1.4, (250, 175, 40), 0.6),
    (2.0, (255, 245, 190), 0.65),
)
TRUTH_COLOR = (0, 200, 255)


def draw_heatmap(pixels: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """An image uint8 (h, w, 3) under the heatmap of a map (any size, stretched to it): uint8 (h, w, 3).

    A threshold of 0 or less, which maps with a sign may have, is no unit: then all above it is colored alike."""
    height, width = pixels.shape[:2]
    values = np.asarray(
        Image.fromarray(anomaly_map.astype(np.float32, copy=False)).resize((width, height), Image.BILINEAR)
    )
    stops, colors, covers = zip(*COLOR_STOPS, strict=True)
    multiples = values / threshold if threshold > 0 else np.where(values > threshold, stops[-2], 0.0)
    cover = np.interp(multiples, stops, covers)[..., None]
    color = np.stack([np.interp(multiples, stops, channel) for channel in zip(*colors, strict=True)], axis=-1)
    return np.rint(pixels * (1 - cover) + color * cover).astype(np.uint8)


def draw_regions(pixels: np.ndarray, regions: Sequence[Region], mask: np.ndarray | None = None) -> np.ndarray:
    """A copy of uint8 (h, w, 3) with a box around each region, and a line around the true defect (h, w), if known."""
    if mask is not None:
        pixels = outlined(pixels, mask, distance_px=1, width_px=max(1, len(pixels) // 200), color=TRUTH_COLOR)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    width_px = max(1, len(pixels) // 150)
    for region in regions:
        left, top, right, bottom = region.box
        # PIL's lower right corner is part of the box, ours is not.
        draw.rectangle((left, top, right - 1, bottom - 1), outline=DEFECT, width=width_px)
    return np.asarray(image)
