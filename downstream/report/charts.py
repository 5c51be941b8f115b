"""Drawings of the report as inline SVG: no image files, no script, colors from the page's style sheet."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

ROC_PX, MARGIN_PX = 300, 40
HISTOGRAM_WIDTH_PX, HISTOGRAM_HEIGHT_PX, BINS = 300, 86, 28
COLORS = 8


class Line(NamedTuple):
    """A receiver operating characteristic: `points` (false-alarm rate, share found) from (0, 0) to (1, 1). `style` is a
    class of the style sheet, such as 'c3 dashed'."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def roc_points(labels: np.ndarray, scores: np.ndarray) -> list[tuple[float, float]]:
    """Of labels bool (n,) and scores (seeds, n): at each false-alarm rate the mean over seeds of the share found."""
    from sklearn.metrics import roc_curve

    curves = [roc_curve(labels, one)[:2] for one in np.atleast_2d(scores)]
    if len(curves) == 1:
        return [(float(x), float(y)) for x, y in zip(*curves[0], strict=True)]
    rates = np.unique(np.concatenate([rate for rate, _ in curves]))
    found = np.mean([np.interp(rates, *curve) for curve in curves], axis=0)
    return [(0.0, 0.0), *((float(x), float(y)) for x, y in zip(rates, found, strict=True))]


def roc_chart(lines: Sequence[Line], label: str) -> str:
    """All lines in one square, chance as its diagonal, and a legend below."""
    side = ROC_PX - 2 * MARGIN_PX

    def place(x: float, y: float) -> str:
        return f"{MARGIN_PX + x * side:.1f},{ROC_PX - MARGIN_PX - y * side:.1f}"

    parts = [f'<svg class="roc" viewBox="0 0 {ROC_PX} {ROC_PX}" role="img" aria-label="{escape(label)}">']
    parts.append(f'<rect class="plot" x="{MARGIN_PX}" y="{MARGIN_PX}" width="{side}" height="{side}"/>')
    for share in (0.25, 0.5, 0.75):
        parts.append(
            f'<path class="grid" d="M{place(share, 0)} L{place(share, 1)} M{place(0, share)} L{place(1, share)}"/>'
        )
    parts.append(f'<path class="chance" d="M{place(0, 0)} L{place(1, 1)}"/>')
    for line in lines:
        points = " L".join(place(x, y) for x, y in line.points)
        parts.append(f'<path class="curve {line.style}" d="M{points}"><title>{escape(line.name)}</title></path>')
    for share in (0, 0.5, 1):
        x, y = MARGIN_PX + share * side, ROC_PX - MARGIN_PX - share * side
        parts.append(f'<text x="{x}" y="{ROC_PX - MARGIN_PX + 14}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{MARGIN_PX - 6}" y="{y + 4}" text-anchor="end">{share:g}</text>')
    middle = ROC_PX / 2
    parts.append(f'<text x="{middle}" y="{ROC_PX - 4}" text-anchor="middle">false alarms among good ones</text>')
    parts.append(
        f'<text transform="translate(10 {middle}) rotate(-90)" text-anchor="middle">defective ones found</text>'
    )
    parts.append("</svg>")
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 26 8"><path class="curve {line.style}" d="M1,4 L25,4"/></svg>'
        f"{escape(line.name)}</li>"
        for line in lines
    )
    return "".join(parts) + f'<ul class="legend">{legend}</ul>'


def histogram(labels: np.ndarray, scores: np.ndarray, threshold: float, label: str) -> str:
    """Scores of good images upwards, of defective ones downwards, and the threshold as a line across both."""
    low, high = float(min(scores.min(), threshold)), float(max(np.quantile(scores, 0.99), threshold))
    room = 0.04 * (high - low) or 0.5
    edges = np.linspace(low - room, high + room, BINS + 1)
    inside = np.clip(scores, edges[0], edges[-1])  # the last bar holds all beyond it
    width = HISTOGRAM_WIDTH_PX / BINS
    middle, most = HISTOGRAM_HEIGHT_PX / 2 - 6, HISTOGRAM_HEIGHT_PX / 2 - 10
    parts = [
        f'<svg class="histogram" viewBox="0 0 {HISTOGRAM_WIDTH_PX} {HISTOGRAM_HEIGHT_PX}" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    for kind, is_kind, direction in (("good", ~labels, -1), ("bad", labels, 1)):
        counts = np.histogram(inside[is_kind], edges)[0]
        for number, count in enumerate(counts):
            if count:
                height = most * count / counts.max()
                top = middle - height if direction < 0 else middle
                parts.append(f'<rect class="{kind}" x="{number * width + 0.5:.1f}" y="{top:.1f}" '
                             f'width="{width - 1:.1f}" height="{height:.1f}"/>')  # fmt: skip
    across = (threshold - edges[0]) / (edges[-1] - edges[0]) * HISTOGRAM_WIDTH_PX
    parts.append(f'<path class="axis" d="M0,{middle} L{HISTOGRAM_WIDTH_PX},{middle}"/>')
    parts.append(f'<path class="threshold" d="M{across:.1f},0 L{across:.1f},{2 * middle:.1f}"/>')
    anchor = "start" if across < HISTOGRAM_WIDTH_PX / 2 else "end"
    parts.append(f'<text x="{across:.1f}" y="{HISTOGRAM_HEIGHT_PX - 1}" text-anchor="{anchor}">'
                 f"threshold {threshold:.3g}</text></svg>")  # fmt: skip
    return "".join(parts)


def confusion(true_good: int, false_alarms: int, missed: int, found: int) -> str:
    """Two rows, what is true, and two columns, what was decided; each cell as dark as its share of its row."""
    rows = []
    for name, right, wrong, order in (("good", true_good, false_alarms, 1), ("defective", found, missed, -1)):
        cells = [("right", right), ("wrong", wrong)][::order]
        shares = "".join(
            f'<td class="{kind}" style="--share:{count / max(1, right + wrong):.2f}">{count}</td>'
            for kind, count in cells
        )
        rows.append(f"<tr><th scope='row'>{name}</th>{shares}</tr>")
    head = "<tr><td></td><th scope='col'>called good</th><th scope='col'>called defective</th></tr>"
    return f'<table class="confusion">{head}{"".join(rows)}</table>'
