"""The map of a set of images as one HTML file and as an image."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from pretrain.drawing import FAINT, INK, MARGIN_PX, PAPER, TITLE_PX

# Okabe and Ito's, told apart by people who see colors differently, then more for sets with many kinds.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#7f3c8d", "#11a579", "#e73f74",
           "#80653d", "#6a6a72")  # fmt: skip
MAP_PX, LEGEND_PX, DOT_PX = 900, 220, 4


class Point(NamedTuple):
    """Where an image lies, 0 to 1 each way, what it is, and its thumbnail as a data URL, if it can be read."""

    x: float
    y: float
    category: str
    split: str
    defect: str
    path: str
    thumbnail: str | None


def colors_of(points: Sequence[Point], by: str) -> dict[str, str]:
    """A color for every value of a label, the most frequent values first."""
    values = [value for value, _ in Counter(getattr(point, by) for point in points).most_common()]
    return {value: COLORS[number % len(COLORS)] for number, value in enumerate(values)}


def map_image(points: Sequence[Point], title: str, by: str) -> Image.Image:
    """Dots and a legend."""
    sheet = Image.new("RGB", (MAP_PX + LEGEND_PX + 3 * MARGIN_PX, MAP_PX + TITLE_PX + 2 * MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    colors = colors_of(points, by)
    for point in points:
        x, y = MARGIN_PX + point.x * MAP_PX, MARGIN_PX + TITLE_PX + point.y * MAP_PX
        draw.ellipse((x - DOT_PX, y - DOT_PX, x + DOT_PX, y + DOT_PX), colors[getattr(point, by)], PAPER)
    font, left = ImageFont.load_default(15), MAP_PX + 2 * MARGIN_PX
    counts = Counter(getattr(point, by) for point in points)
    draw.text((left, MARGIN_PX + TITLE_PX), by, FAINT, font)
    for row, (value, color) in enumerate(colors.items(), 1):
        top = MARGIN_PX + TITLE_PX + 26 * row
        draw.ellipse((left, top + 3, left + 12, top + 15), color)
        draw.text((left + 20, top), f"{value} {counts[value]}", INK, font)
    return sheet


def map_page(points: Sequence[Point], title: str, by: str) -> str:
    """A page that draws the points, says what is under the pointer, zooms, and hides kinds; it loads nothing."""
    data = {
        "points": [point._asdict() for point in points],
        "colors": {label: colors_of(points, label) for label in ("category", "split", "defect")},
        "by": by,
    }
    # Inside a script element nothing but this ends it.
    text = json.dumps(data).replace("</", "<\\/")
    return PAGE.replace("TITLE", escape(title.encode("utf-8", "replace").decode())).replace("DATA", text)


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>TITLE</title><style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --faint: #6e6e73; --line: #d9d9de; --card: #f5f5f7; }
@media (prefers-color-scheme: dark) { :root { --paper: #161618; --ink: #f2f2f4; --faint: #a0a0a8; --line: #3a3a3f;
  --card: #222226; } }
* { box-sizing: border-box; }
body { margin: 0; height: 100dvh; display: grid; grid-template: auto minmax(0, 1fr) / minmax(0, 1fr) 220px;
  gap: 12px 20px; padding: 20px; background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
h1 { grid-column: 1 / -1; margin: 0; font-size: 20px; overflow-wrap: anywhere; }
canvas { width: 100%; height: 100%; border: 1px solid var(--line); border-radius: 8px; touch-action: none;
  cursor: crosshair; }
aside { overflow: auto; }
label, .hint { display: block; color: var(--faint); font-size: 13px; }
select { width: 100%; margin: 4px 0 12px; font: inherit; }
button { display: flex; width: 100%; gap: 8px; align-items: center; padding: 4px; border: 0; background: none;
  color: inherit; font: inherit; text-align: left; cursor: pointer; border-radius: 4px; overflow-wrap: anywhere; }
button:hover { background: var(--card); }
button[aria-pressed=false] { opacity: .35; }
i { flex: none; width: 12px; height: 12px; border-radius: 50%; }
#card { position: fixed; display: none; max-width: 220px; padding: 8px; border: 1px solid var(--line);
  border-radius: 8px; background: var(--card); font-size: 13px; overflow-wrap: anywhere; pointer-events: none;
  box-shadow: 0 4px 16px #0003; }
#card img { display: block; width: 160px; border-radius: 4px; margin-bottom: 6px; }
@media (max-width: 640px) { body { grid-template: auto minmax(0, 1fr) 160px / minmax(0, 1fr); } }
</style></head><body><h1>TITLE</h1><canvas aria-label="map of the images"></canvas>
<aside><label>color by <select><option>category<option>split<option>defect</select></label><div></div>
<p class="hint">Wheel or pinch to zoom, drag to move, double-click to reset; click a kind to hide it.</p></aside>
<div id="card"></div><script>
const set = DATA;
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d"), card = document.getElementById("card");
const choice = document.querySelector("select"), legend = document.querySelector("aside div");
let by = set.by, hidden = new Set(), view = {scale: 1, x: 0, y: 0}, under = null;
const fingers = new Map();

function place(point) {
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) - 32;
  const left = (canvas.clientWidth - side) / 2, top = (canvas.clientHeight - side) / 2;
  return [(left + point.x * side) * view.scale + view.x, (top + point.y * side) * view.scale + view.y];
}
function draw() {
  const ratio = window.devicePixelRatio || 1, paper = getComputedStyle(document.body).backgroundColor;
  canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const point of set.points) {
    if (hidden.has(point[by])) continue;
    const [x, y] = place(point), radius = (point === under ? 8 : 4.5);
    pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fillStyle = set.colors[by][point[by]]; pen.fill();
    pen.strokeStyle = paper; pen.stroke();
  }
}
function label() {
  legend.replaceChildren(...Object.entries(set.colors[by]).map(([value, color]) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    dot.style.background = color;
    button.setAttribute("aria-pressed", String(!hidden.has(value)));
    button.append(dot, `${value} ${set.points.filter(point => point[by] === value).length}`);
    button.onclick = () => { hidden.has(value) ? hidden.delete(value) : hidden.add(value); label(); draw(); };
    return button;
  }));
}
function show(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let nearest = 14, found = null;
  for (const point of set.points) {
    if (hidden.has(point[by])) continue;
    const [px, py] = place(point), distance = Math.hypot(px - x, py - y);
    if (distance < nearest) { nearest = distance; found = point; }
  }
  if (found !== under) {
    under = found; draw();
    card.replaceChildren();
    if (found) {
      if (found.thumbnail) card.append(Object.assign(new Image(), {src: found.thumbnail, alt: ""}));
      card.append(`${found.category}, ${found.split}, ${found.defect}`, document.createElement("br"), found.path);
    }
  }
  card.style.display = found ? "block" : "none";
  card.style.left = Math.min(event.clientX + 14, innerWidth - card.offsetWidth - 8) + "px";
  card.style.top = Math.min(event.clientY + 14, innerHeight - card.offsetHeight - 8) + "px";
}
function zoom(factor, clientX, clientY) {
  const box = canvas.getBoundingClientRect(), x = clientX - box.left, y = clientY - box.top;
  const scale = Math.min(60, Math.max(0.5, view.scale * factor));
  view = {scale, x: x - (x - view.x) * scale / view.scale, y: y - (y - view.y) * scale / view.scale};
  draw();
}
canvas.onwheel = event => {
  event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
};
canvas.onpointerdown = event => {
  fingers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); show(event);
};
canvas.onpointermove = event => {
  const before = fingers.get(event.pointerId);
  if (before && fingers.size === 2) {
    const [one, other] = [...fingers.values()].filter(finger => finger.pointerId !== event.pointerId).concat(event);
    const gap = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    zoom(gap(one, other) / (gap(one, before) || 1), one.clientX, one.clientY);
  } else if (before) {
    view.x += event.clientX - before.clientX; view.y += event.clientY - before.clientY; draw();
  }
  if (before) fingers.set(event.pointerId, event);
  show(event);
};
canvas.onpointerup = canvas.onpointercancel = event => fingers.delete(event.pointerId);
canvas.onpointerleave = () => { card.style.display = "none"; under = null; draw(); };
canvas.ondblclick = () => { view = {scale: 1, x: 0, y: 0}; draw(); };
choice.value = by;
choice.onchange = () => { by = choice.value; hidden = new Set(); label(); draw(); };
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
label(); draw();
</script></body></html>
"""
