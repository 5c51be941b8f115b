// Scores on one line: the normals the model was calibrated on, recent results, this image, and the threshold.

import { drawn } from "./elements.js";
import { isDefective } from "./decision.js";
import { figure } from "./format.js";

const HEIGHT_PX = 118;
const THUMB_PX = 18; // of the slider below, whose middle has to stand under the threshold's line
const [RESULTS_Y, NORMALS_Y, AXIS_Y] = [46, 78, 94];

/** From where to where scores are drawn, and the slider moves. It depends on the model, not on what is dropped. */
export function axisOf(model, trial, recent) {
  const known = [...model.normal_scores, model.value, model.fitted, trial];
  if (model.normal_scores.length < 2) known.push(...recent.map((one) => one.anomaly_score));
  const lowest = Math.min(...known);
  const spread = Math.max(...known) - lowest || Math.abs(lowest) || 1;
  const from = lowest - 0.06 * spread;
  return { from: lowest >= 0 ? Math.max(0, from) : from, to: Math.max(...known) + 1.2 * spread };
}

/** Draw into `box`, as wide as it is. `current` is the answer that is looked at, or null. */
export function drawStrip(box, { model, trial, recent, axis, current }) {
  const width = Math.max(200, box.clientWidth);
  const x = (score) => {
    const share = Math.min(1, Math.max(0, (score - axis.from) / (axis.to - axis.from)));
    return THUMB_PX / 2 + share * (width - THUMB_PX);
  };
  const line = (kind, score, from, to) => drawn("line", { class: kind, x1: x(score), x2: x(score), y1: from, y2: to });
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT_PX}`, width, height: HEIGHT_PX, role: "img" });
  svg.append(drawn("title", {}, spoken(model, trial, recent, current)));
  svg.append(drawn("rect", { class: "beyond", x: x(trial), y: 26, width: Math.max(0, width - x(trial)), height: AXIS_Y - 26 }));
  svg.append(...dots(model, trial, recent, x));
  for (const score of model.normal_scores) svg.append(line("normal", score, NORMALS_Y - 8, NORMALS_Y + 8));
  svg.append(drawn("line", { class: "axis", x1: 0, x2: width, y1: AXIS_Y, y2: AXIS_Y }), ...ticks(axis, x));
  if (trial !== model.value) svg.append(line("in-force", model.value, 26, AXIS_Y));
  svg.append(line("limit", trial, 22, AXIS_Y + 3));
  if (current) svg.append(...pointer(current, x(current.anomaly_score), current.anomaly_score > axis.to, width));
  box.replaceChildren(svg);
}

/** Recent results: triangles for defective, circles for good, spread by their number so that few hide others. */
function dots(model, trial, recent, x) {
  const paths = { good: "", defective: "" };
  for (const result of recent) {
    const y = RESULTS_Y + ((result.id * 7) % 13) - 6;
    const at = x(result.anomaly_score);
    if (isDefective(result, trial, model)) paths.defective += `M${at} ${y - 4}l4 7h-8z`;
    else paths.good += `M${at - 3} ${y}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z`;
  }
  return Object.entries(paths).map(([kind, d]) => drawn("path", { class: `dots ${kind}`, d }));
}

function ticks({ from, to }, x) {
  const rough = (to - from) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  const made = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
    made.push(drawn("line", { class: "axis", x1: x(tick), x2: x(tick), y1: AXIS_Y, y2: AXIS_Y + 4 }));
    made.push(drawn("text", { class: "tick", x: x(tick), y: AXIS_Y + 17 }, figure(tick)));
  }
  return made;
}

function pointer(current, at, isBeyond, width) {
  const words = `this image ${figure(current.anomaly_score)}${isBeyond ? " →" : ""}`;
  const half = 3.8 * words.length;
  return [
    drawn("path", { class: "pointer", d: `M${at} 34l-6-10h12z` }),
    drawn("line", { class: "pointer-line", x1: at, x2: at, y1: 34, y2: AXIS_Y }),
    drawn("text", { class: "pointer-words", x: Math.min(width - half, Math.max(half, at)), y: 16 }, words),
  ];
}

function spoken(model, trial, recent, current) {
  const normals = `${model.normal_scores.length} normals and ${recent.length} recent results`;
  const own = current ? `; this image's score is ${figure(current.anomaly_score)}` : "";
  return `Scores of ${normals} beside the threshold ${figure(trial)}${own}.`;
}
