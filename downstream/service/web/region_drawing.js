// A region of interest while it is drawn: its polygons and zones, a way back from each change, and the roi.json of it.

export const [LOOK, IGNORE, NEW_ZONE] = ["look", "ignore", "new"];
export const FEWEST_POINTS = 3;
const MAX_STEPS_BACK = 200;
const VISIBLE = Math.log(1.1); // a stretch along one side that can be seen, as pretrain/data/size.py has it

/**
 * A polygon is {role, points}: `role` is LOOK, IGNORE or the number of a zone, points are [x, y] in pixels of `size`. A
 * zone is {number, name, by, value, area}, the last two as they were typed; `by` is share, rate or threshold. It is there
 * as long as a polygon is of it.
 */
export class Drawing {
  size; // {width, height} of what it is drawn on; null: of nothing yet
  polygons = [];
  zones = [];
  #before = [];
  #tag = null;
  #saved;

  /** Of a roi.json, or of nothing, on an image of `size` if there is one. */
  constructor(roi, size = null) {
    this.size = size;
    this.#take(roi);
    this.saved();
  }

  /** What is drawn now is what the service has. */
  saved() {
    this.#saved = JSON.stringify(this.asRoi());
  }

  get isChanged() {
    return JSON.stringify(this.asRoi()) !== this.#saved;
  }

  get canUndo() {
    return this.#before.length > 0;
  }

  /** Before a change: `undo` leads back here. Of changes in a row with one `tag` it leads back to before the first. */
  mark(tag = null) {
    if (tag !== null && tag === this.#tag) return;
    this.#tag = tag;
    this.#before.push(JSON.stringify([this.polygons, this.zones, this.size]));
    if (this.#before.length > MAX_STEPS_BACK) this.#before.shift();
  }

  undo() {
    if (!this.canUndo) return;
    this.#tag = null;
    [this.polygons, this.zones, this.size] = JSON.parse(this.#before.pop());
  }

  /** Another drawing in place of this one, with a way back. */
  replace(roi) {
    this.mark();
    this.#take(roi);
  }

  /** A new polygon. Within one that counts it is ignored, else it counts; it can be told otherwise. */
  add(points) {
    this.mark();
    const isInside = points.every(([x, y]) => this.polygons.some((one) => one.role !== IGNORE && contains(one.points, x, y)));
    const role = isInside ? IGNORE : (this.zones.at(-1)?.number ?? LOOK);
    this.polygons.push({ role, points });
    return this.polygons.length - 1;
  }

  remove(polygon) {
    this.mark();
    this.polygons.splice(polygon, 1);
    this.#dropZones();
  }

  setRole(polygon, role) {
    this.mark();
    this.polygons[polygon].role = role === NEW_ZONE ? this.#newZone() : role;
    this.#dropZones();
  }

  setZone(zone, name, value) {
    this.mark();
    zone[name] = value;
  }

  move(polygon, point, x, y) {
    this.polygons[polygon].points[point] = this.inside(x, y);
  }

  /** A point halfway to the next one. */
  insert(polygon, point, tag = null) {
    this.mark(tag);
    const { points } = this.polygons[polygon];
    points.splice(point + 1, 0, this.inside(...halfway(points, point)));
    return point + 1;
  }

  /** False for a polygon that would be none without it. */
  removePoint(polygon, point) {
    const { points } = this.polygons[polygon];
    if (points.length <= FEWEST_POINTS) return false;
    this.mark();
    points.splice(point, 1);
    return true;
  }

  /** The one that lies above all others at a place; -1: none. */
  polygonAt(x, y) {
    return this.polygons.findLastIndex((one) => contains(one.points, x, y));
  }

  inside(x, y) {
    return [rounded(Math.min(this.size.width, Math.max(0, x))), rounded(Math.min(this.size.height, Math.max(0, y)))];
  }

  zoneOf(polygon) {
    return this.zones.find((zone) => zone.number === polygon.role) ?? null;
  }

  nameOf(polygon) {
    return this.zoneOf(polygon)?.name ?? polygon.role;
  }

  /** Whether an image may lie beneath: of the shape that it was drawn on. */
  fits({ width, height }) {
    if (this.polygons.length === 0) return true;
    return Math.abs(Math.log((width / height) * (this.size.height / this.size.width))) <= VISIBLE;
  }

  /** As roi.json has it, keys in the order of the service; null where nothing is drawn. */
  asRoi() {
    if (this.polygons.length === 0) return null;
    const of = (role) => this.polygons.filter((one) => one.role === role).map((one) => one.points);
    const roi = { format: 1, image_size: [this.size.width, this.size.height] };
    if (this.zones.length) roi.zones = this.zones.map((zone) => zoneAsRoi(zone, of(zone.number)));
    if (of(LOOK).length) roi.include = of(LOOK);
    if (of(IGNORE).length) roi.ignore = of(IGNORE);
    return roi;
  }

  #take(roi) {
    const { include = [], ignore = [], zones = [], image_size: size } = roi ?? {};
    if (size) this.size = { width: size[0], height: size[1] };
    this.zones = zones.map((zone, number) => ({
      number, name: zone.name, by: zone.threshold !== undefined ? "threshold" : zone.false_alarm_rate !== undefined ? "rate" : "share",
      value: String(zone.threshold ?? zone.false_alarm_rate ?? ""), area: String(zone.min_area_px ?? ""),
    }));
    const polygonsOf = (polygons, role) => polygons.map((points) => ({ role, points: points.map(([x, y]) => [x, y]) }));
    const ofZones = zones.flatMap((zone, number) => polygonsOf(zone.include, number));
    this.polygons = [...polygonsOf(include, LOOK), ...ofZones, ...polygonsOf(ignore, IGNORE)];
  }

  #newZone() {
    const number = 1 + Math.max(-1, ...this.zones.map((zone) => zone.number));
    this.zones.push({ number, name: `zone ${number + 1}`, by: "share", value: "", area: "" });
    return number;
  }

  #dropZones() {
    this.zones = this.zones.filter((zone) => this.polygons.some((one) => one.role === zone.number));
  }
}

function zoneAsRoi({ name, by, value, area }, include) {
  const zone = { name, include };
  if (by !== "share") zone[by === "rate" ? "false_alarm_rate" : "threshold"] = numberOf(value);
  if (area !== "") zone.min_area_px = numberOf(area);
  return zone;
}

export function contains(points, x, y) {
  let isInside = false;
  for (const [i, [x0, y0]] of points.entries()) {
    const [x1, y1] = points.at(i - 1);
    if ((y0 > y) !== (y1 > y) && x < x0 + ((x1 - x0) * (y - y0)) / (y1 - y0)) isInside = !isInside;
  }
  return isInside;
}

export function halfway(points, point) {
  const [[x0, y0], [x1, y1]] = [points[point], points[(point + 1) % points.length]];
  return [(x0 + x1) / 2, (y0 + y1) / 2];
}

/** What is none stays as it was typed, for the service to refuse it: JSON has null for NaN, which would pass. */
const numberOf = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);
const rounded = (value) => Math.round(10 * value) / 10;
