"""Drawings of the report as inline SVG: no image files, no script, colors from the page's style sheet.

Each is `Markup`, which Jinja2 takes as it is: texts from outside go in by `Markup.format`, which escapes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from sklearn.metrics import roc_curve

ROC_PX, MARGIN_PX = 300, 40
HISTOGRAM_WIDTH_PX, HISTOGRAM_HEIGHT_PX, BINS = 300, 86, 28
COLORS = 8  # c0 to c7 in report.css


class Curve(NamedTuple):
    """A receiver operating characteristic: `points` (false-alarm rate, share found) from (0, 0) to (1, 1). `style` is a
    class of the style sheet, such as 'c3 dashed'."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def roc_points(labels: np.ndarray, scores: np.ndarray) -> list[tuple[float, float]]:
    """Of labels bool (n,) and scores (seeds, n): at each false-alarm rate the mean over seeds of the share found."""
    curves = [roc_curve(labels, of_seed)[:2] for of_seed in np.atleast_2d(scores)]
    if len(curves) == 1:
        return [(float(x), float(y)) for x, y in zip(*curves[0], strict=True)]
    rates = np.unique(np.concatenate([rate for rate, _ in curves]))
    shares = np.mean([np.interp(rates, *curve) for curve in curves], axis=0)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in zip(rates, shares, strict=True))]


def roc_chart(curves: Sequence[Curve], label: str) -> Markup:
    """All curves in one square, chance as its diagonal."""
    start, end = MARGIN_PX, ROC_PX - MARGIN_PX
    side, middle = end - start, ROC_PX / 2
    lines = [
        Markup('<svg class="roc" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">').format(ROC_PX, label),
        Markup('<rect class="plot" x="{0}" y="{0}" width="{1}" height="{1}"/>').format(start, side),
    ]
    for share in (0.25, 0.5, 0.75):
        across = f"M{_at(share, 0)} L{_at(share, 1)} M{_at(0, share)} L{_at(1, share)}"
        lines.append(Markup('<path class="grid" d="{}"/>').format(across))
    lines.append(Markup('<path class="chance" d="M{} L{}"/>').format(_at(0, 0), _at(1, 1)))
    for name, style, points in curves:
        path = " L".join(_at(x, y) for x, y in points)
        lines.append(Markup('<path class="curve {}" d="M{}"><title>{}</title></path>').format(style, path, name))
    for share in (0, 0.5, 1):
        x, y = start + share * side, end - share * side
        lines.append(Markup('<text x="{}" y="{}" text-anchor="middle">{:g}</text>').format(x, end + 14, share))
        lines.append(Markup('<text x="{}" y="{}" text-anchor="end">{:g}</text>').format(start - 6, y + 4, share))
    x_axis = Markup('<text x="{}" y="{}" text-anchor="middle">false alarms among good ones</text>')
    y_axis = Markup('<text transform="translate(10 {}) rotate(-90)" text-anchor="middle">defective ones found</text>')
    lines += [x_axis.format(middle, ROC_PX - 4), y_axis.format(middle), Markup("</svg>")]
    return Markup("").join(lines)


def histogram(labels: np.ndarray, scores: np.ndarray, threshold: float, label: str) -> Markup:
    """Scores of good images upwards, of defective ones downwards, and the threshold as a line across both."""
    low, high = float(min(scores.min(), threshold)), float(max(np.quantile(scores, 0.99), threshold))
    margin = 0.04 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    inside = np.clip(scores, edges[0], edges[-1])  # the last bar holds all beyond it
    middle = HISTOGRAM_HEIGHT_PX / 2 - 6
    threshold_x = (threshold - edges[0]) / (edges[-1] - edges[0]) * HISTOGRAM_WIDTH_PX
    anchor = "start" if threshold_x < HISTOGRAM_WIDTH_PX / 2 else "end"
    lines = [
        Markup('<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            HISTOGRAM_WIDTH_PX, HISTOGRAM_HEIGHT_PX, label
        ),
        *_bars(np.histogram(inside[~labels], edges)[0], "good", middle, is_upward=True),
        *_bars(np.histogram(inside[labels], edges)[0], "bad", middle, is_upward=False),
        Markup('<path class="axis" d="M0,{0} L{1},{0}"/>').format(middle, HISTOGRAM_WIDTH_PX),
        Markup('<path class="threshold" d="M{0:.1f},0 L{0:.1f},{1:.1f}"/>').format(threshold_x, 2 * middle),
        Markup('<text x="{:.1f}" y="{}" text-anchor="{}">threshold {:.3g}</text></svg>').format(
            threshold_x, HISTOGRAM_HEIGHT_PX - 1, anchor, threshold
        ),
    ]
    return Markup("").join(lines)


def _bars(counts: np.ndarray, style: str, middle: float, is_upward: bool) -> list[Markup]:
    """A bar for each bin that holds images, the highest as high as there is room."""
    width, highest = HISTOGRAM_WIDTH_PX / BINS, HISTOGRAM_HEIGHT_PX / 2 - 10
    bars = []
    for position, count in enumerate(counts):
        if count:
            height = highest * count / counts.max()
            bars.append(
                Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    style, position * width + 0.5, middle - height if is_upward else middle, width - 1, height
                )
            )
    return bars


def _at(x: float, y: float) -> str:
    """A point of the unit square, as the path of `roc_chart` names it."""
    side = ROC_PX - 2 * MARGIN_PX
    return f"{MARGIN_PX + x * side:.1f},{ROC_PX - MARGIN_PX - y * side:.1f}"
