// What is read off an image, in words: the verdict, how sure it is, its regions, and the metadata.

import { byId, element, symbol } from "./elements.js";
import { paintScale } from "./heatmap.js";
import { count, figure, moment, percent, sureness, verdictKind, verdictWord } from "./format.js";

/** The band above the image. `retry()` is called for one that failed. */
export function showVerdict(item, session, retry) {
  const band = byId("verdict");
  // Before the verdict, which may be of the camera and not of the product.
  const camera = item?.answer?.camera;
  byId("camera-words").hidden = !camera;
  byId("camera-words").replaceChildren(symbol("failed"), `The camera: ${camera}. Look at it before you trust the verdict.`);
  const content = { none: nothing, waiting: pending, sending: pending, failed: () => failed(item, retry), done: () => verdict(item, session) };
  const state = item?.state ?? "none";
  band.dataset.state = state === "done" ? verdictKind(session.isDefective(item.answer)) : state;
  band.replaceChildren(...content[state](item));
}

function nothing() {
  return [element("p", { class: "headline" }, "No image yet"),
    element("p", {}, "Its verdict will stand here, with the score, the threshold and how sure it is.")];
}

function pending(item) {
  return [element("p", { class: "headline" }, symbol("waiting"), item.state === "waiting" ? "Waiting its turn" : "Being judged"),
    element("p", { class: "of" }, item.name)];
}

function failed(item, retry) {
  return [element("p", { class: "headline" }, symbol("failed"), "Not judged"),
    element("p", { class: "of" }, item.name), element("p", {}, item.reason),
    element("button", { type: "button", onclick: retry }, "Retry")];
}

function verdict(item, session) {
  const { answer } = item;
  const isDefective = session.isDefective(answer);
  const [limit, sure] = [session.threshold(answer), session.confidence(answer)];
  const isAbove = answer.anomaly_score > limit;
  const relation = isAbove ? "above" : answer.anomaly_score === limit ? "at" : "below";
  const meter = element("meter", { min: 0.5, max: 1, value: sure, "aria-label": "Confidence, from 50 % at the threshold to 100 %" });
  const notes = [];
  if (answer.model === session.model?.model && session.isOnTrial) notes.push("by the threshold on trial");
  if (answer.model !== session.model?.model) notes.push(`by the model ${answer.model}`);
  if (session.mapLimit(answer) !== (answer.map_threshold ?? session.threshold(answer))) {
    notes.push(`boxes are those at ${figure(answer.threshold)}`);
  }
  if (isDefective && answer.map_threshold !== null && !answer.regions.length) notes.push("no single place is above the map's own threshold");
  if (isAbove && !isDefective) notes.push("no region is large enough");
  if (answer.alignment?.is_aligned === false) notes.push("not aligned: judged as it lies");
  if (answer.is_distorted) notes.push("drawn out of shape to what the model sees: trust it less");
  if (answer.has_other_size) notes.push("larger or smaller than the images that the model was fitted to");
  const zones = zonesOf(answer);
  if (zones.length) notes.push(`${isDefective ? "defective" : "above its threshold"} in ${zones.join(", ")}`);
  if (!isDefective && !isAbove && answer.regions.length) notes.push(`${count(answer.regions.length, "region")} above the map's own threshold`);
  return [
    element("p", { class: "headline" }, symbol(verdictKind(isDefective)), verdictWord(isDefective)),
    element("p", { class: "of" }, item.name),
    element("p", { class: "score" }, element("b", {}, figure(answer.anomaly_score)), ` ${relation} the threshold ${figure(limit)}`),
    element("p", { class: "sure" }, meter, sureness(sure)),
    notes.length > 0 && element("p", { class: "notes" }, notes.join("; ")),
  ].filter(Boolean);
}

/** The names of the zones that have a region; none for a model without zones. */
function zonesOf(answer) {
  return [...new Set(answer.regions.map((region) => region.zone).filter(Boolean))];
}

/** What is said aloud once an answer is there. */
export function spokenVerdict(item, session) {
  const word = verdictWord(session.isDefective(item.answer)).toLowerCase();
  const { anomaly_score: score, regions } = item.answer;
  const zones = zonesOf(item.answer);
  const where = regions.length ? `, ${count(regions.length, "region")}${zones.length ? ` in ${zones.join(", ")}` : ""}` : "";
  const camera = item.answer.camera ? `The camera: ${item.answer.camera}. ` : "";
  return `${camera}${item.name}: ${word}, score ${figure(score)}, threshold ${figure(session.threshold(item.answer))}, ${sureness(session.confidence(item.answer))}${where}.`;
}

/** The regions as buttons that zoom to them. */
export function showRegions(answer, zoomTo) {
  byId("regions-panel").hidden = !answer;
  if (!answer) return;
  if (answer.regions.length === 0) {
    byId("regions").replaceChildren(element("p", { class: "faint" }, "None: nothing lies above the map's threshold."));
    return;
  }
  const whole = answer.width * answer.height;
  const rows = answer.regions.map((region, position) => {
    const [left, top, right, bottom] = region.box;
    return element("li", {}, element("button", { type: "button", onclick: () => zoomTo(position), title: "Zoom to it" },
      element("b", {}, String(position + 1)),
      element("span", {}, Boolean(region.zone) && `${region.zone}: `, `${region.area_px} px²`, element("small", {}, ` ${percent(region.area_px, whole)} of the image`)),
      element("small", {}, `${right - left} × ${bottom - top} at ${left}, ${top}; peak ${figure(region.peak)}`)));
  });
  byId("regions").replaceChildren(element("ol", { class: "regions" }, ...rows));
}

export function showMetadata(answer) {
  byId("metadata-panel").hidden = !answer;
  if (!answer) return;
  const metadata = {
    Name: answer.name || "–", Size: `${answer.width} × ${answer.height} px`, Model: `${answer.model} (${answer.category})`,
    Judged: moment(answer.created), "Time taken": `${figure(answer.milliseconds)} ms`, "Result number": answer.id,
    "As answered": `${verdictWord(answer.is_defective).toLowerCase()}, threshold ${figure(answer.threshold)}`,
    "Reconstruction error": figure(answer.reconstruction_error), "SHA-256": answer.digest, Kept: answer.is_kept ? "yes" : "no",
  };
  const rows = Object.entries(metadata).filter(([, value]) => value !== "–");
  byId("metadata").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]));
}

/** The colors' meaning, below the image. */
export function showHeatKey(limit) {
  if (limit === null) return byId("heat-key").replaceChildren();
  if (limit <= 0) return byId("heat-key").replaceChildren(`all above ${figure(limit)} is colored alike`);
  const canvas = element("canvas", { class: "scale", "aria-hidden": "true" });
  paintScale(canvas);
  byId("heat-key").replaceChildren("0", element("span", { class: "scale-box" }, canvas), figure(2 * limit),
    element("span", { class: "key-words", title: "The same scale for every image of this model" }, `contour at ${figure(limit)}`));
}
