// The view where a region of interest is drawn for a model's next fit: what is in force, what is saved, and the way there.

import { ask, fetched, save } from "./api.js";
import { byId, element } from "./elements.js";
import { count } from "./format.js";
import { RegionCanvas } from "./region_canvas.js";
import { Drawing, IGNORE, LOOK, NEW_ZONE } from "./region_drawing.js";
import { drawZones } from "./region_zones.js";

const ZOOM_STEP = 1.4;

export class Region {
  #session;
  #tell;
  #canvas;
  #answer = null; // GET /api/roi
  #refreshing = Promise.resolve();
  #drawings = new Map(); // by model, so that what was drawn and not saved is there when one comes back to it
  #drawing = null;
  #url = null;
  #shown = null; // {name, path} of the image that is drawn on; a file of the person's has no path
  #rows = ""; // which polygons are listed: they are listed anew for others alone, since one of them has the focus

  /** `tell` has trouble(error) and announce(words). */
  constructor(session, tell) {
    this.#session = session;
    this.#tell = tell;
    this.#canvas = new RegionCanvas({ announce: tell.announce, changed: () => this.#draw() });
    const buttons = {
      new: () => this.#canvas.begin(), close: () => this.#canvas.close(), cancel: () => this.#canvas.cancel(), undo: () => this.undo(),
      "point-add": () => this.#canvas.addPoint(), "point-delete": () => this.#canvas.deletePoint(),
      "zoom-in": () => this.zoom(1), "zoom-out": () => this.zoom(-1), "zoom-fit": () => this.zoom(0),
      save: () => this.#save(), download: () => save(new Blob([`${JSON.stringify(this.#drawing.asRoi(), null, 1)}\n`]), "roi.json"),
      own: () => this.#changed(() => this.#drawing.replace(this.#answer.in_force)), choose: () => byId("region-file").click(),
    };
    for (const [name, act] of Object.entries(buttons)) byId(`region-${name}`).addEventListener("click", act);
    byId("region-file").addEventListener("change", (event) => {
      this.use(event.target.files[0]);
      event.target.value = "";
    });
    byId("region-images").addEventListener("change", ({ target }) => this.#useKept(this.#answer.images.find(({ path }) => path === target.value)));
    byId("region-image").addEventListener("error", () => this.#notShown());
    byId("region").addEventListener("keydown", (event) => {
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.target.matches("input")) return;
      event.preventDefault();
      this.undo();
    });
  }

  /** One after the other: of two at once, as when the page opens, the second took the image away while one drew. */
  refresh() {
    return (this.#refreshing = this.#refreshing.then(() => this.#refresh()));
  }

  async #refresh() {
    try {
      const answer = await ask("/api/roi");
      const isOther = answer.model !== this.#answer?.model;
      this.#answer = answer;
      const roi = answer.drawn ?? answer.in_force;
      const known = this.#drawings.get(answer.model);
      const isKnown = known && (known.isChanged || JSON.stringify(known.asRoi()) === JSON.stringify(roi));
      this.#drawing = isKnown ? known : new Drawing(roi, known?.size);
      this.#drawings.set(answer.model, this.#drawing);
      if (isOther || !this.#url) await this.#useKept(answer.images.find((one) => this.#drawing.fits(one)) ?? null);
      this.#draw();
    } catch (error) {
      this.#tell.trouble(error);
    }
  }

  /** Draw on a file of the person's; it is sent nowhere. */
  async use(file) {
    if (!file || !this.#drawing) return;
    const image = await createImageBitmap(file).catch(() => null);
    if (!image) return this.#notShown();
    const size = { width: image.width, height: image.height };
    image.close();
    return this.#show(URL.createObjectURL(file), size, file.name);
  }

  undo() {
    this.#canvas.undo();
  }

  begin() {
    this.#canvas.begin();
  }

  /** In and out by 1 and -1; 0 fits the image. */
  zoom(steps) {
    this.#canvas.zoom(steps === 0 ? null : ZOOM_STEP ** steps);
  }

  async #useKept(image) {
    const blob = image && (await fetched(image.path).catch(() => null));
    if (blob) this.#show(URL.createObjectURL(blob), image, image.name, image.path);
    else this.#showNothing();
  }

  #show(url, { width, height }, name, path = "") {
    if (!this.#drawing.fits({ width, height })) {
      URL.revokeObjectURL(url);
      const { size } = this.#drawing;
      this.#tell.trouble(new Error(`${name} has ${width} × ${height} pixels, and this was drawn on ${size.width} × ${size.height}: choose an image of that shape.`));
    } else {
      this.#showNothing();
      [this.#url, this.#shown] = [url, { name, path }];
      if (this.#drawing.polygons.length === 0) this.#drawing.size = { width, height };
      byId("region-image").src = url;
      byId("region-image").hidden = false;
    }
    this.#draw();
  }

  #showNothing() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = this.#shown = null;
    byId("region-image").removeAttribute("src");
    byId("region-image").hidden = true;
  }

  #notShown() {
    this.#tell.trouble(new Error("This browser cannot show that image: choose a PNG, JPEG or WebP."));
  }

  async #save() {
    const [drawing, { model }] = [this.#drawing, this.#answer];
    try {
      const path = `/api/roi?${new URLSearchParams({ model })}`;
      const answer = await ask(path, { method: "PUT", body: { roi: drawing.asRoi() } });
      drawing.saved();
      if (drawing !== this.#drawing) return; // of a model that was left meanwhile
      this.#answer = answer;
      this.#tell.announce(this.#stateWords());
    } catch (error) {
      this.#tell.trouble(error);
    }
    this.#draw();
  }

  #changed(act) {
    act();
    this.#canvas.choose(this.#drawing.polygons[this.#canvas.polygon] ? this.#canvas.polygon : -1);
  }

  // ---- drawing

  #draw() {
    const [drawing, canvas] = [this.#drawing, this.#canvas];
    if (!drawing) return;
    canvas.show(drawing);
    const isOnItsWay = canvas.begun !== null;
    byId("region-state").textContent = this.#stateWords();
    byId("region-empty").hidden = drawing.size !== null;
    byId("region-new").hidden = byId("region-point-add").hidden = isOnItsWay;
    byId("region-new").disabled = drawing.size === null;
    byId("region-close").hidden = byId("region-cancel").hidden = !isOnItsWay;
    byId("region-close").disabled = (canvas.begun?.length ?? 0) < 3;
    byId("region-undo").disabled = !isOnItsWay && !drawing.canUndo;
    byId("region-point-add").disabled = byId("region-point-delete").disabled = isOnItsWay || canvas.point < 0;
    byId("region-words").textContent = wordsOf(drawing, canvas);
    byId("region-save").hidden = !this.#session.may("configure") || this.#answer.refusal !== null;
    byId("region-save").disabled = !drawing.isChanged || isOnItsWay;
    byId("region-download").disabled = drawing.polygons.length === 0;
    byId("region-own").hidden = this.#answer.drawn === null && !drawing.isChanged;
    byId("region-how").hidden = this.#answer.command === null;
    byId("region-command").textContent = this.#answer.command ?? "";
    this.#drawImages();
    this.#drawPolygons();
    drawZones(drawing, () => this.#draw());
  }

  #drawImages() {
    const { images } = this.#answer;
    const listed = this.#shown && !this.#shown.path ? [this.#shown, ...images] : images;
    const options = listed.map(({ name, path }) => element("option", { value: path }, name || "an image"));
    byId("region-images").replaceChildren(...(options.length ? options : [element("option", {}, "none was kept")]));
    byId("region-images").value = this.#shown?.path ?? "";
    byId("region-images").disabled = images.length === 0;
  }

  #stateWords() {
    const { in_force: inForce, has_mask: hasMask, drawn, refusal } = this.#answer;
    const judges = `The model judges ${inForce ? "the region that it was fitted with" : hasMask ? "within a mask, which has no polygons to show" : "all of the image"}.`;
    if (refusal) return `${refusal[0].toUpperCase()}${refusal.slice(1)}`;
    if (this.#drawing.isChanged) return `Not saved. ${judges}`;
    return drawn ? `Saved for the next fit. ${judges}` : judges;
  }

  #drawPolygons() {
    const [list, focused] = [byId("region-polygons"), document.activeElement?.dataset.key];
    const { polygons, zones } = this.#drawing;
    const rows = JSON.stringify([polygons.map(({ role }) => role), zones.map(({ number }) => number)]);
    if (rows !== this.#rows) {
      this.#rows = rows;
      list.replaceChildren(...polygons.map((polygon, i) => this.#row(polygon, i, zones)));
      if (polygons.length === 0) list.append(element("li", { class: "faint" }, "None: all of the image counts."));
      if (focused) list.querySelector(`[data-key="${focused}"]`)?.focus();
    }
    for (const [i, button] of list.querySelectorAll("[aria-pressed]").entries()) button.ariaPressed = String(i === this.#canvas.polygon);
    for (const zone of zones) for (const option of list.querySelectorAll(`option[value="${zone.number}"]`)) option.textContent = zone.name;
  }

  #row(polygon, i, zones) {
    const name = `Polygon ${i + 1}`;
    const choose = element("button", { type: "button", "data-key": `choose ${i}`, "aria-pressed": "false", onclick: () => this.#canvas.choose(i === this.#canvas.polygon ? -1 : i) }, name);
    const options = [[LOOK, "look here"], [IGNORE, "ignore"], ...zones.map((zone) => [zone.number, zone.name]), [NEW_ZONE, "a new zone"]];
    const role = element("select", { "aria-label": `What ${name.toLowerCase()} is`, "data-key": `role ${i}` },
      ...options.map(([value, words]) => element("option", { value, selected: value === polygon.role }, words)));
    role.addEventListener("change", () => this.#changed(() =>
      this.#drawing.setRole(i, options.find(([value]) => String(value) === role.value)[0])));
    const remove = element("button", { type: "button", class: "icon", "aria-label": `Delete ${name.toLowerCase()}`, title: "Delete it", onclick: () => {
      this.#changed(() => this.#drawing.remove(i));
      this.#canvas.choose(-1);
      this.#tell.announce(`${name} is gone; ${count(this.#drawing.polygons.length, "polygon")} left.`);
      byId("region-undo").focus();
    } }, "×");
    return element("li", {}, choose, role, remove);
  }
}

function wordsOf({ size, polygons }, { begun, polygon }) {
  if (size === null) return "";
  if (begun) return "Click its points, and the first one again to close it. Keys: arrows move a cross, space sets a point, enter closes, escape leaves.";
  if (polygon >= 0) return "Drag points, or move the chosen one with arrow keys. The small ones between become points when they are dragged.";
  if (polygons.length === 0) return "Click the points of a polygon around what counts, or around what does not.";
  return "Click a polygon to change it.";
}
