// Marks on the image that say where a defect is: suggested regions, a brush, boxes; with the pointer or the keyboard.

import { byId, drawn, element } from "./elements.js";
import { count } from "./format.js";
import { suggestedBoxes } from "./suggestions.js";

const LEAST_BOX_PX = 2;
const STEP = 0.02; // of the image's longer side, for the cross that arrow keys move
const FAST = 5;

/** What was marked, as POST /api/feedback takes it. */
export function marksOf(list) {
  const of = (kind) => list.filter((one) => one.kind === kind);
  const marks = {};
  const boxes = of("box").map((one) => one.box);
  const strokes = of("stroke").map(({ radius, points }) => ({ radius, points }));
  if (boxes.length) marks.boxes = boxes;
  if (strokes.length) marks.strokes = strokes;
  return marks;
}

export class Marking {
  #stage;
  #announce;
  #done = null; // what to do with the marks
  #marks = [];
  #suggested = [];
  #size = { width: 1, height: 1 };
  #view = { x: 0, y: 0, scale: 1 };
  #cross = null; // where the keyboard is
  #begun = null; // the mark on its way

  constructor(stage, announce) {
    this.#stage = stage;
    this.#announce = announce;
    byId("marking-undo").addEventListener("click", () => this.#undo());
    byId("marking-cancel").addEventListener("click", () => this.stop());
    byId("marking-save").addEventListener("click", () => this.#save());
    byId("marking").addEventListener("change", () => this.#draw());
    byId("brush").addEventListener("input", () => this.#draw());
    document.addEventListener("keydown", (event) => this.isOn && this.#onKey(event), { capture: true });
  }

  get isOn() {
    return this.#done !== null;
  }

  /** Mark on the image of an item of the queue; `done(marks)` is called once, if they are saved. */
  start(item, done) {
    const { width, height } = item.answer;
    this.#size = { width, height };
    const others = item.map ? suggestedBoxes(item.map, width, height) : [];
    this.#suggested = item.answer.regions.length ? item.answer.regions.map((one) => one.box) : others;
    [this.#done, this.#marks, this.#begun, this.#cross] = [done, [], null, null];
    const tools = byId("marking").querySelectorAll("input[name=tool]");
    for (const tool of tools) tool.checked = tool.value === (this.#suggested.length ? "region" : "brush");
    tools[0].disabled = this.#suggested.length === 0;
    byId("suggestions").replaceChildren(...this.#suggested.map((_, i) => element("button",
      { type: "button", class: "icon", "aria-pressed": "false", "aria-label": `Suggested region ${i + 1}`, onclick: () => this.#toggle(i) }, String(i + 1))));
    byId("marking").hidden = false;
    byId("pen").toggleAttribute("hidden", false);
    byId("stage").classList.add("marking");
    this.#stage.pen = this;
    this.#stage.redraw();
    this.#draw();
    byId("stage").focus({ preventScroll: true });
    this.#announce("Mark where the defect is, then save. Arrow keys move a cross, space marks there, numbers take suggested regions.");
  }

  /** Without saving, or after it. */
  stop() {
    if (!this.isOn) return;
    this.#done = null;
    this.#stage.pen = null;
    byId("marking").hidden = true;
    byId("pen").toggleAttribute("hidden", true);
    byId("stage").classList.remove("marking");
    byId("stage").focus({ preventScroll: true });
  }

  // ---- what the stage tells

  drawn(view) {
    this.#view = { ...view };
    this.#draw();
  }

  pointer(kind, event, point) {
    if (event.button > 0) return false;
    if (kind === "pointerdown") {
      byId("stage").setPointerCapture(event.pointerId);
      this.#cross = null;
      this.#begin(point);
    } else if (kind === "pointermove" && this.#begun) {
      this.#extend(point);
    } else if (kind === "pointerup" && this.#begun) {
      this.#end();
    } else if (kind === "pointercancel") {
      this.#begun = null;
    } else {
      return false;
    }
    this.#draw();
    return true;
  }

  // ---- marks

  get #tool() {
    return byId("marking").querySelector("input[name=tool]:checked").value;
  }

  /** In pixels of the image: a share of its longer side. */
  get #radius() {
    return Math.max(0.5, (Number(byId("brush").value) / 200) * Math.max(this.#size.width, this.#size.height));
  }

  #begin(point) {
    if (this.#tool === "region") {
      const hit = this.#suggested.findIndex(([left, top, right, bottom]) =>
        point.x >= left && point.x < right && point.y >= top && point.y < bottom);
      if (hit >= 0) this.#begun = { kind: "box", box: this.#suggested[hit], suggested: hit };
    } else if (this.#tool === "brush") {
      this.#begun = { kind: "stroke", radius: rounded(this.#radius), points: [this.#inside(point)] };
    } else {
      const [x, y] = this.#inside(point);
      this.#begun = { kind: "box", from: [x, y], box: [x, y, x, y] };
    }
  }

  #extend(point) {
    if ("suggested" in this.#begun) return;
    const [x, y] = this.#inside(point);
    if (this.#begun.kind === "box") {
      const [x0, y0] = this.#begun.from;
      this.#begun.box = [Math.floor(Math.min(x0, x)), Math.floor(Math.min(y0, y)), Math.ceil(Math.max(x0, x)), Math.ceil(Math.max(y0, y))];
      return;
    }
    const [lastX, lastY] = this.#begun.points.at(-1);
    // Points closer than a quarter of the brush add nothing to what it covers.
    if (Math.hypot(x - lastX, y - lastY) > this.#begun.radius / 4 && this.#begun.points.length < 2000) this.#begun.points.push([x, y]);
  }

  #end() {
    const mark = this.#begun;
    this.#begun = null;
    if ("suggested" in mark) return this.#toggle(mark.suggested);
    if (mark.kind === "box") {
      const [left, top, right, bottom] = mark.box;
      if (right - left < LEAST_BOX_PX || bottom - top < LEAST_BOX_PX) return undefined;
    }
    this.#marks.push(mark);
    return this.#said();
  }

  #inside({ x, y }) {
    return [rounded(Math.min(this.#size.width, Math.max(0, x))), rounded(Math.min(this.#size.height, Math.max(0, y)))];
  }

  #toggle(number) {
    const at = this.#marks.findIndex((one) => one.suggested === number);
    if (at >= 0) this.#marks.splice(at, 1);
    else this.#marks.push({ kind: "box", box: this.#suggested[number], suggested: number });
    this.#said();
    this.#draw();
  }

  #undo() {
    this.#marks.pop();
    this.#said();
    this.#draw();
  }

  #save() {
    const done = this.#done;
    const marks = marksOf(this.#marks);
    this.stop();
    done(marks);
  }

  #said() {
    const last = this.#marks.at(-1);
    const words = count(this.#marks.length, "mark");
    if (last?.kind !== "box") return this.#announce(words);
    const [left, top, right, bottom] = last.box;
    return this.#announce(`${words}; the last is ${right - left} by ${bottom - top} at ${left}, ${top}`);
  }

  // ---- keys

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    const isField = target.matches("input");
    const isButton = target.matches("button, a, summary, select");
    if (key === "Escape") this.stop();
    else if (key === "Enter" && !isButton) this.#save();
    else if (key === "Backspace" || key === "z") this.#undo();
    else if (/^[1-9]$/.test(key) && key <= this.#suggested.length) this.#toggle(Number(key) - 1);
    else if (key === "+" || key === "-") byId("brush").valueAsNumber += key === "+" ? 1 : -1;
    else if (key.startsWith("Arrow") && !isField) this.#move(key, event.shiftKey);
    else if (key === " " && !isField && !isButton) this.#mark();
    else if (key.length > 1 || key === " " || key === "?") return; // Tab and what else the page needs
    event.preventDefault();
    event.stopPropagation();
    if (this.isOn) this.#draw();
  }

  #move(key, isFast) {
    const step = STEP * (isFast ? FAST : 1) * Math.max(this.#size.width, this.#size.height);
    const [x, y] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key];
    this.#cross ??= { x: this.#size.width / 2, y: this.#size.height / 2 };
    const [newX, newY] = this.#inside({ x: this.#cross.x + x, y: this.#cross.y + y });
    this.#cross = { x: newX, y: newY };
    if (this.#begun) this.#extend(this.#cross);
  }

  /** Space: the brush is set down at the cross, a suggested region taken; a box begins there, and the second time ends there. */
  #mark() {
    this.#cross ??= { x: this.#size.width / 2, y: this.#size.height / 2 };
    if (this.#begun) return this.#end();
    this.#begin(this.#cross);
    if (this.#begun && !this.#begun.from) this.#end();
    return undefined;
  }

  // ---- drawing

  #draw() {
    if (!this.isOn) return;
    const { x, y, scale } = this.#view;
    const tool = this.#tool;
    byId("brush-size").classList.toggle("off", tool !== "brush");
    byId("suggestions").classList.toggle("off", tool !== "region");
    byId("marking-undo").disabled = this.#marks.length === 0;
    byId("marking-save").textContent = this.#marks.length ? "Save" : "Save without a place";
    byId("marking-words").textContent = (isTouched() ? BY_TOUCH : BY_POINTER_AND_KEYS)[tool];
    const isTaken = (i) => this.#marks.some((one) => one.suggested === i);
    for (const [i, button] of [...byId("suggestions").children].entries()) button.setAttribute("aria-pressed", String(isTaken(i)));
    const isShown = tool === "region";
    const suggested = isShown ? this.#suggested.map((box, i) => rectangle(box, `suggested${isTaken(i) ? " taken" : ""}`)) : [];
    const labels = isShown ? this.#suggested.map(([left, top], i) =>
      drawn("text", { class: "label", x: x + left * scale + 5, y: y + top * scale + 15 }, String(i + 1))) : [];
    const marks = [...this.#marks, this.#begun].filter(Boolean).map((one) => one.kind === "box" ? rectangle(one.box, "mark") : stroke(one));
    const cross = this.#cross ? [drawn("path", { class: "cross", d: crossAt(this.#cross, Math.max(12 / scale, tool === "brush" ? this.#radius : 0)) })] : [];
    const shapes = drawn("g", { transform: `translate(${x} ${y}) scale(${scale})` }, ...suggested, ...marks, ...cross);
    byId("pen").replaceChildren(shapes, ...labels);
  }
}

const isTouched = () => window.matchMedia("(pointer: coarse)").matches;
const BY_POINTER_AND_KEYS = { region: "Click the regions that are defective, or type their numbers.",
  brush: "Paint over it; or move the cross with arrow keys and press space.",
  box: "Drag a box; or set its corners with arrow keys and space." };
const BY_TOUCH = { region: "Tap the regions that are defective.", brush: "Paint over it with a finger; two zoom.",
  box: "Drag a box with a finger; two zoom." };
const rounded = (value) => Math.round(10 * value) / 10;
const rectangle = ([left, top, right, bottom], kind) => drawn("rect", { class: kind, x: left, y: top, width: right - left, height: bottom - top });
const crossAt = ({ x, y }, arm) => `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}`;

function stroke({ points, radius }) {
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
  return drawn("path", { class: "stroke", d: points.length > 1 ? path : `${path}h0.01`, "stroke-width": 2 * radius });
}
