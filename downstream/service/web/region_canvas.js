// The image that a region is drawn on, with its polygons: points are buttons, so that they can be dragged and have keys.

import { byId, element } from "./elements.js";
import { FEWEST_POINTS, halfway } from "./region_drawing.js";
import { drawLines } from "./region_lines.js";

const MARGIN_PX = 20; // so that points on the border can be taken hold of
const MAX_ZOOM = 12;
const STEP = 0.02; // of the image's longer side, for the cross
const POINT_STEP = 0.004; // for a point
const FAST = 5;

export class RegionCanvas {
  #stage = byId("region-stage");
  #sheet = byId("region-sheet");
  #points = byId("region-points");
  #tell;
  #drawing = null;
  #zoom = 1;
  #cross = null; // where the keyboard is
  #hover = null; // where the pointer is, while a polygon is drawn
  /** The polygon and the point that were chosen; -1: none. */
  polygon = -1;
  point = -1;
  /** The points of a polygon on its way; null: none is. */
  begun = null;

  /** `tell` has changed(), after what was drawn or chosen is another; announce(words). */
  constructor(tell) {
    this.#tell = tell;
    new ResizeObserver(() => this.draw()).observe(this.#stage);
    this.#sheet.addEventListener("click", (event) => this.#onClick(event));
    this.#sheet.addEventListener("pointermove", (event) => this.begun && this.#onHover(event));
    this.#stage.addEventListener("keydown", (event) => event.target === this.#stage && this.#onKey(event));
  }

  show(drawing) {
    if (drawing !== this.#drawing) [this.polygon, this.point, this.begun, this.#cross] = [-1, -1, null, null];
    this.#drawing = drawing;
    this.draw();
  }

  /** Choose a polygon, of it a point. */
  choose(polygon, point = -1) {
    [this.polygon, this.point] = [polygon, point];
    this.#tell.changed();
  }

  /** By a factor around the middle; null: fit the image. */
  zoom(factor) {
    const before = this.#zoom;
    this.#zoom = factor === null ? 1 : Math.min(MAX_ZOOM, Math.max(1, before * factor));
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.#stage;
    this.draw();
    const ratio = this.#zoom / before;
    this.#stage.scrollLeft = (scrollLeft + clientWidth / 2) * ratio - clientWidth / 2;
    this.#stage.scrollTop = (scrollTop + clientHeight / 2) * ratio - clientHeight / 2;
  }

  // ---- a polygon on its way

  begin() {
    if (!this.#drawing?.size || this.begun) return;
    this.begun = [];
    this.choose(-1);
    this.#stage.focus({ preventScroll: true });
    this.#tell.announce("A new polygon. Click its points; or move the cross with arrow keys, space sets a point, enter closes it.");
  }

  close() {
    if (this.begun.length < FEWEST_POINTS) return this.#tell.announce(`A polygon has ${FEWEST_POINTS} points at least.`);
    const points = this.begun;
    this.begun = this.#hover = this.#cross = null;
    const polygon = this.#drawing.add(points);
    this.choose(polygon);
    return this.#tell.announce(`Polygon ${polygon + 1}: ${this.#drawing.nameOf(this.#drawing.polygons[polygon])}, ${points.length} points.`);
  }

  cancel() {
    this.begun = this.#hover = this.#cross = null;
    this.#tell.changed();
  }

  /** The last point of a polygon on its way, else the last change. */
  undo() {
    if (this.begun?.length) this.begun.pop();
    else if (this.begun) this.begun = null;
    else this.#drawing?.undo();
    if (!this.#drawing?.polygons[this.polygon]?.points[this.point]) this.point = -1;
    if (!this.#drawing?.polygons[this.polygon]) this.polygon = -1;
    this.#tell.changed();
  }

  // ---- points of the chosen polygon

  addPoint() {
    this.choose(this.polygon, this.#drawing.insert(this.polygon, this.point));
    this.#focusPoint();
  }

  deletePoint() {
    if (!this.#drawing.removePoint(this.polygon, this.point)) {
      return this.#tell.announce(`A polygon has ${FEWEST_POINTS} points at least: delete all of it.`);
    }
    this.choose(this.polygon, Math.max(0, this.point - 1));
    return this.#focusPoint();
  }

  #focusPoint() {
    this.#points.querySelectorAll("button.point")[this.point]?.focus({ preventScroll: true });
  }

  // ---- pointer

  #place(event) {
    const { left, top, width, height } = this.#sheet.getBoundingClientRect();
    const { size } = this.#drawing;
    return this.#drawing.inside(((event.clientX - left) / width) * size.width, ((event.clientY - top) / height) * size.height);
  }

  #onClick(event) {
    // A drag, whose pointer `#points` has, ends in a click too.
    if (!this.#drawing?.size || event.target === this.#points || event.target.closest("button, .midpoint")) return;
    const place = this.#place(event);
    this.#cross = null;
    if (!this.begun && this.#drawing.polygons.length === 0) this.begin();
    if (this.begun) this.#put(place);
    else this.choose(this.#drawing.polygonAt(...place));
  }

  #put(place) {
    this.begun.push(place);
    this.#tell.announce(`Point ${this.begun.length} at ${place.map(Math.round).join(", ")}`);
    this.#tell.changed();
  }

  #onHover(event) {
    this.#hover = event.pointerType === "mouse" ? this.#place(event) : null;
    this.draw();
  }

  /** Drag a point; `point(tag)` gives its number, once the pointer is down; `tag` is that of all changes on the way. */
  #drags(button, point) {
    button.addEventListener("pointerdown", (event) => {
      if (event.button > 0 || this.begun) return;
      event.preventDefault(); // else text would be selected
      const tag = `drag ${event.timeStamp}`;
      const dragged = point(tag);
      this.choose(this.polygon, dragged);
      this.#focusPoint();
      this.#points.setPointerCapture(event.pointerId);
      const move = (moved) => {
        this.#drawing.mark(tag);
        this.#drawing.move(this.polygon, dragged, ...this.#place(moved));
        this.draw();
      };
      const end = () => {
        for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) this.#points.removeEventListener(name, end);
        this.#points.removeEventListener("pointermove", move);
        this.#tell.changed();
      };
      this.#points.addEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) this.#points.addEventListener(name, end);
    });
  }

  // ---- keys

  #onKey(event) {
    if (!this.#drawing?.size || event.altKey || event.ctrlKey || event.metaKey) return;
    const { key } = event;
    if (key.startsWith("Arrow")) this.#moveCross(key, event.shiftKey);
    else if (key === " ") this.#setAtCross();
    else if (key === "Enter" && this.begun) this.close();
    else if (key === "Enter" && this.#cross) this.choose(this.#drawing.polygonAt(...this.#cross));
    else if (key === "Backspace" && this.begun) this.undo();
    else if (key === "Escape" && this.begun) this.cancel();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #moveCross(key, isFast) {
    const [x, y] = this.#stepOf(key, STEP * (isFast ? FAST : 1));
    const { width, height } = this.#drawing.size;
    this.#cross ??= [width / 2, height / 2];
    this.#cross = this.#drawing.inside(this.#cross[0] + x, this.#cross[1] + y);
    this.draw();
    byId("region-lines").querySelector(".cross")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.#tell.announce(this.#cross.map(Math.round).join(", "));
  }

  #setAtCross() {
    const { width, height } = this.#drawing.size;
    this.#cross ??= this.#drawing.inside(width / 2, height / 2);
    if (!this.begun) this.begin();
    this.#put([...this.#cross]);
  }

  #stepOf(key, share) {
    const step = share * Math.max(this.#drawing.size.width, this.#drawing.size.height);
    return { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key];
  }

  #onPointKey(event, point) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key.startsWith("Arrow")) {
      const [x, y] = this.#stepOf(event.key, POINT_STEP * (event.shiftKey ? FAST : 1));
      const place = this.#drawing.polygons[this.polygon].points[point];
      this.#drawing.mark(`keys ${this.polygon} ${point}`);
      this.#drawing.move(this.polygon, point, place[0] + x, place[1] + y);
      this.#tell.announce(this.#drawing.polygons[this.polygon].points[point].map(Math.round).join(", "));
      this.choose(this.polygon, point);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.deletePoint();
    } else if (event.key === "Insert") {
      this.addPoint();
    } else if (event.key === "Escape") {
      this.#stage.focus({ preventScroll: true });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- drawing

  draw() {
    const size = this.#drawing?.size;
    this.#sheet.hidden = !size;
    if (!size) return;
    const room = [this.#stage.clientWidth - 2 * MARGIN_PX, this.#stage.clientHeight - 2 * MARGIN_PX];
    const scale = this.#zoom * Math.max(1e-3, Math.min(room[0] / size.width, room[1] / size.height));
    Object.assign(this.#sheet.style, { width: `${size.width * scale}px`, height: `${size.height * scale}px` });
    const [chosen, ahead] = [this.polygon, this.#hover ?? this.#cross];
    drawLines(byId("region-lines"), this.#drawing, { chosen, begun: this.begun, ahead, cross: this.#cross, scale });
    this.#drawPoints(size);
    this.#drawLabels(size);
  }

  /** Buttons stay the ones that they were, so that the focus does. */
  #drawPoints(size) {
    const points = this.begun ?? this.#drawing.polygons[this.polygon]?.points ?? [];
    const isOnItsWay = this.begun !== null;
    const buttons = this.#asMany("button.point", points.length, (i) => this.#pointButton(i));
    for (const [i, button] of buttons.entries()) {
      place(button, points[i], size);
      const where = points[i].map(Math.round).join(", ");
      button.ariaLabel = isOnItsWay ? (i ? `Point ${i + 1} at ${where}` : "Close the polygon here") : `Point ${i + 1} of polygon ${this.polygon + 1}, at ${where}`;
      button.tabIndex = isOnItsWay && i ? -1 : 0;
      button.classList.toggle("begun", isOnItsWay && i > 0);
      button.classList.toggle("chosen", !isOnItsWay && i === this.point);
    }
    const middles = this.#asMany("div.midpoint", isOnItsWay ? 0 : points.length, (i) => this.#midpoint(i));
    for (const [i, middle] of middles.entries()) place(middle, halfway(points, i), size);
  }

  #asMany(selector, count, make) {
    const there = [...this.#points.querySelectorAll(selector)];
    for (const one of there.splice(count)) one.remove();
    while (there.length < count) {
      there.push(make(there.length));
      this.#points.append(there.at(-1));
    }
    return there;
  }

  #pointButton(i) {
    const button = element("button", { type: "button", class: "point" });
    button.addEventListener("focus", () => !this.begun && this.point !== i && this.choose(this.polygon, i));
    button.addEventListener("click", () => this.begun && i === 0 && this.close());
    button.addEventListener("keydown", (event) => !this.begun && this.#onPointKey(event, i));
    this.#drags(button, () => i);
    return button;
  }

  /** For the pointer; keys have a button that says so. */
  #midpoint(i) {
    const middle = element("div", { class: "midpoint", "aria-hidden": "true" });
    this.#drags(middle, (tag) => this.#drawing.insert(this.polygon, i, tag));
    return middle;
  }

  #drawLabels(size) {
    const labels = this.#asMany("span.region-label", this.#drawing.polygons.length, () => element("span", { class: "region-label", "aria-hidden": "true" }));
    for (const [i, polygon] of this.#drawing.polygons.entries()) {
      const corner = polygon.points.reduce((best, point) => (point[0] + point[1] < best[0] + best[1] ? point : best));
      place(labels[i], corner, size);
      labels[i].textContent = `${i + 1} ${this.#drawing.nameOf(polygon)}`;
      labels[i].classList.toggle("left", corner[0] > 0.75 * size.width);
    }
  }
}

function place(element, [x, y], { width, height }) {
  Object.assign(element.style, { left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%` });
}
