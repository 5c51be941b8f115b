// The image on its stage: heat, contours and boxes over it; zoom and pan by wheel, pinch, drag, buttons and keys.

import { byId, drawn } from "./elements.js";
import { contours, paintHeat, valueAt } from "./heatmap.js";
import { figure } from "./format.js";

const MAX_SCALE = 40; // stage pixels for one of the image
const PIXELS_SHOW_FROM = 4; // from this scale on pixels are shown as squares, not smoothed
const STEP = 1.25;
const LABELS_WITH_AREA = 6;
const PAN_PX = 60;

export class Stage {
  #box = byId("stage");
  #layers = byId("layers");
  #image = byId("image");
  #heat = byId("heat");
  #marks = byId("marks");
  #size = null; // of the image, in its pixels
  #view = { x: 0, y: 0, scale: 1, isFitted: true };
  #pointers = new Map();
  #drawn = null; // which pointer draws, and where it is
  #shown = null;
  #chosenRegion = null;
  /** Where somebody draws: `drawn(view, size)` after each change of the view; `pointer(kind, event, point)` takes what the
   * pointer does, `point` in pixels of the image, and says whether it did. Null: nobody does. */
  pen = null;

  constructor() {
    new ResizeObserver(() => (this.#view.isFitted ? this.fit() : this.#draw())).observe(this.#box);
    this.#box.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel", "pointerleave"]) {
      this.#box.addEventListener(kind, (event) => this.#onPointer(kind, event));
    }
    this.#box.addEventListener("dblclick", (event) => {
      if (event.target.closest("button") || this.pen) return;
      if (this.#view.isFitted) this.zoom(3, this.#place(event));
      else this.fit();
    });
    this.#box.addEventListener("keydown", (event) => this.#onKey(event));
    byId("zoom-in").addEventListener("click", () => this.zoom(STEP));
    byId("zoom-out").addEventListener("click", () => this.zoom(1 / STEP));
    byId("zoom-fit").addEventListener("click", () => this.fit());
    this.#image.addEventListener("error", () => this.#shown && this.#withoutImage());
    this.#image.addEventListener("load", () => this.#shown && !this.#size && this.#sizeOfImage());
  }

  /**
   * Show an image: `shown` has url (or null), width and height (null: what the browser finds), name, map (or null), limit
   * (of the map, or null), regions, isDefective. Null shows nothing. An image of the same size keeps the zoom, so that
   * the same place can be compared.
   */
  show(shown) {
    const isSameSize = shown && this.#size?.width === shown.width && this.#size?.height === shown.height;
    this.#shown = shown;
    this.#chosenRegion = null;
    this.#size = shown?.width ? { width: shown.width, height: shown.height } : null;
    this.#box.dataset.empty = shown ? "no" : "yes";
    byId("stage-words").textContent = "";
    byId("probe").hidden = true;
    this.#marks.replaceChildren();
    this.#sized();
    this.#heat.hidden = !shown?.map;
    if (!shown) {
      this.#image.removeAttribute("src");
      return;
    }
    this.#warm();
    this.#image.alt = shown.name;
    this.#image.hidden = !shown.url;
    if (shown.url) this.#image.src = shown.url;
    else this.#withoutImage();
    if (isSameSize && !this.#view.isFitted) this.#draw();
    else this.fit();
  }

  /** The verdict moved with the threshold, and the map's limit with it where one threshold is for both. */
  decide(isDefective, limit) {
    if (!this.#shown) return;
    const isSame = this.#shown.limit === limit;
    Object.assign(this.#shown, { isDefective, limit });
    if (!isSame) this.#warm();
    this.#draw();
  }

  layers({ heat, contours: lines, boxes, opacity }) {
    Object.assign(this.#box.dataset, { heat: String(heat), contours: String(lines), boxes: String(boxes) });
    this.#heat.style.opacity = opacity;
  }

  fit() {
    if (!this.#size) return;
    this.#view.scale = this.#fitting();
    this.#view.isFitted = true;
    this.#center(this.#size.width / 2, this.#size.height / 2);
  }

  /** Zoom by a factor around a place of the stage; default is its middle. */
  zoom(factor, place = { x: this.#box.clientWidth / 2, y: this.#box.clientHeight / 2 }) {
    if (!this.#size) return;
    const { x, y, scale } = this.#view;
    const wanted = Math.min(MAX_SCALE, Math.max(this.#fitting() * 0.5, scale * factor));
    const ratio = wanted / scale;
    this.#view = { x: place.x - (place.x - x) * ratio, y: place.y - (place.y - y) * ratio, scale: wanted, isFitted: false };
    this.#draw();
  }

  /** Let a region fill two thirds of the stage; a small one less, so that its surroundings are seen. */
  zoomTo(position) {
    const [left, top, right, bottom] = this.#shown.regions[position].box;
    this.#chosenRegion = position;
    const side = Math.max(right - left, bottom - top, 1);
    const room = Math.min(this.#box.clientWidth, this.#box.clientHeight);
    this.#view.scale = Math.max(this.#fitting(), Math.min(MAX_SCALE / 3, (2 * room) / (3 * side)));
    this.#view.isFitted = false;
    this.#center((left + right) / 2, (top + bottom) / 2);
  }

  get isZoomed() {
    return this.#size !== null && !this.#view.isFitted && this.#view.scale > this.#fitting() * 1.001;
  }

  #warm() {
    const { map, limit, width, height } = this.#shown;
    this.#shown.path = map ? contours(map, limit, width, height) : "";
    if (map) paintHeat(this.#heat, map, limit);
  }

  /** Nothing was answered yet: as large as the browser finds it. */
  #sizeOfImage() {
    this.#size = { width: this.#image.naturalWidth, height: this.#image.naturalHeight };
    this.#sized();
    this.fit();
  }

  #sized() {
    this.#layers.hidden = !this.#size;
    this.#box.querySelector(".zoom").hidden = !this.#size;
  }

  #withoutImage() {
    this.#image.hidden = true;
    if (!this.#size && !this.#shown.url) return;
    byId("stage-words").textContent = !this.#size ? "There is nothing that this browser can show." : this.#shown.url
      ? "This browser cannot show this kind of image. Heat and boxes are where the service saw them."
      : "This image was not kept. Boxes are where its regions were.";
  }

  #fitting() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    return Math.max(1e-3, Math.min((width - 24) / this.#size.width, (height - 24) / this.#size.height));
  }

  #center(x, y) {
    const { scale } = this.#view;
    this.#view.x = this.#box.clientWidth / 2 - x * scale;
    this.#view.y = this.#box.clientHeight / 2 - y * scale;
    this.#draw();
  }

  #draw() {
    if (!this.#size) return;
    const view = this.#view;
    const [width, height] = [this.#size.width * view.scale, this.#size.height * view.scale];
    // The middle of the stage always shows some of the image: it cannot be lost.
    view.x = Math.min(this.#box.clientWidth / 2, Math.max(this.#box.clientWidth / 2 - width, view.x));
    view.y = Math.min(this.#box.clientHeight / 2, Math.max(this.#box.clientHeight / 2 - height, view.y));
    Object.assign(this.#layers.style, {
      width: `${width}px`, height: `${height}px`, transform: `translate(${view.x}px, ${view.y}px)`,
    });
    this.#layers.classList.toggle("pixels", view.scale >= PIXELS_SHOW_FROM);
    this.#box.classList.toggle("zoomed", this.isZoomed);
    byId("zoom-words").textContent = `${Math.round(100 * view.scale)} %`;
    this.#drawMarks(view);
    this.pen?.drawn(view, this.#size);
  }

  /** Draw again, as after a change of the view. */
  redraw() {
    this.#draw();
  }

  #drawMarks({ x, y, scale }) {
    const { regions, path, isDefective } = this.#shown;
    const line = (kind) => drawn("path", { class: `contour ${kind}`, d: path, transform: `translate(${x} ${y}) scale(${scale})` });
    const marks = path ? [line("under"), line("over")] : [];
    const boxes = drawn("g", { class: isDefective ? "boxes" : "boxes aside" });
    for (const [position, region] of regions.entries()) {
      const [left, top, right, bottom] = region.box;
      const place = { x: x + left * scale, y: y + top * scale, width: (right - left) * scale, height: (bottom - top) * scale };
      const isChosen = position === this.#chosenRegion;
      boxes.append(drawn("rect", { class: "under", ...place }), drawn("rect", { class: isChosen ? "over chosen" : "over", ...place }));
      const words = regions.length > LABELS_WITH_AREA ? `${position + 1}` : `${position + 1} · ${region.area_px} px²`;
      const isAbove = place.y > 22; // else there is no room but within
      boxes.append(drawn("text", { class: "label", x: place.x + (isAbove ? 0 : 6), y: place.y + (isAbove ? -5 : 17) }, words));
    }
    this.#marks.replaceChildren(...marks, boxes);
  }

  #place(event) {
    const { left, top } = this.#box.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  #onWheel(event) {
    // In one column the page scrolls: there the wheel zooms with Ctrl only, as everywhere on the web.
    const pageScrolls = document.documentElement.scrollHeight > window.innerHeight + 1;
    if (!this.#size || (pageScrolls && !event.ctrlKey)) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.zoom(Math.exp(-0.002 * lines * Math.max(-200, Math.min(200, event.deltaY))), this.#place(event));
  }

  #onPointer(kind, event) {
    if (!this.#size || event.target.closest("button")) return;
    const place = this.#place(event);
    const point = { x: (place.x - this.#view.x) / this.#view.scale, y: (place.y - this.#view.y) / this.#view.scale };
    if (this.#drawing(kind, event, place, point)) return;
    if (kind === "pointermove") this.#probe(place);
    if (kind === "pointerleave") byId("probe").hidden = true;
    if (kind === "pointerdown") {
      this.#pointers.set(event.pointerId, place);
      if (this.isZoomed || this.#pointers.size > 1) this.#box.setPointerCapture(event.pointerId);
      return;
    }
    if (!this.#pointers.has(event.pointerId)) return;
    if (kind !== "pointermove") return void this.#pointers.delete(event.pointerId);
    const before = [...this.#pointers.values()];
    this.#pointers.set(event.pointerId, place);
    const after = [...this.#pointers.values()];
    if (after.length === 1 && this.isZoomed) this.#pan(after[0].x - before[0].x, after[0].y - before[0].y);
    if (after.length === 2) {
      this.zoom(apart(after) / Math.max(1, apart(before)), middle(before));
      this.#pan(middle(after).x - middle(before).x, middle(after).y - middle(before).y);
    }
  }

  /** Whether a pointer draws. A second finger makes of both what moves and zooms the image, and of the mark nothing. */
  #drawing(kind, event, place, point) {
    if (!this.pen || this.#pointers.size > 0) return false;
    if (kind === "pointerdown" && !event.isPrimary && this.#drawn) {
      this.pen.pointer("pointercancel", event, point);
      this.#pointers.set(this.#drawn.id, this.#drawn.place);
      return false;
    }
    if (kind === "pointerdown" || this.#drawn?.id === event.pointerId) this.#drawn = { id: event.pointerId, place };
    const isTaken = this.pen.pointer(kind, event, point);
    if (kind !== "pointerdown" && kind !== "pointermove") this.#drawn = null;
    return isTaken;
  }

  #pan(x, y) {
    this.#view.x += x;
    this.#view.y += y;
    this.#draw();
  }

  #probe(place) {
    const { map, limit } = this.#shown;
    const x = (place.x - this.#view.x) / this.#view.scale;
    const y = (place.y - this.#view.y) / this.#view.scale;
    const isInside = x >= 0 && y >= 0 && x < this.#size.width && y < this.#size.height;
    byId("probe").hidden = !isInside;
    if (!isInside) return;
    const where = `x ${Math.floor(x)}  y ${Math.floor(y)}`;
    const heat = map ? valueAt(map, x / this.#size.width, y / this.#size.height) : null;
    byId("probe").textContent = heat === null ? where : `${where}  heat ${figure(heat)} of ${figure(limit)}`;
  }

  #onKey(event) {
    if (event.target !== this.#box || event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowLeft: [PAN_PX, 0], ArrowRight: [-PAN_PX, 0], ArrowUp: [0, PAN_PX], ArrowDown: [0, -PAN_PX] };
    if (!(event.key in steps) || !this.isZoomed) return; // else arrows go through the images
    this.#pan(...steps[event.key]);
    event.preventDefault();
    event.stopPropagation();
  }
}

const apart = ([one, two]) => Math.hypot(one.x - two.x, one.y - two.y);
const middle = ([one, two]) => ({ x: (one.x + two.x) / 2, y: (one.y + two.y) / 2 });
