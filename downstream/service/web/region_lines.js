// The lines of a region over its image, and the shade over what does not count.

import { drawn } from "./elements.js";
import { IGNORE, LOOK } from "./region_drawing.js";

const ZONE_COLORS = 4;
const CROSS_PX = 12;

/**
 * Draw into an SVG: a drawing, of which the polygon of number `chosen` is; `begun`, the points of one on its way or null,
 * leads to `ahead`; `cross` is where the keyboard is, or null. `scale` is stage pixels for one of the image.
 */
export function drawLines(svg, drawing, { chosen, begun, ahead, cross, scale }) {
  const { polygons, size: { width, height } } = drawing;
  const lines = polygons.flatMap((polygon, i) => both("polygon", polygon.points, `${kindOf(drawing, polygon)}${i === chosen ? " chosen" : ""}`));
  const way = begun?.length ? both("polyline", [...begun, ...(ahead ? [ahead] : [])], "begun") : [];
  const shade = polygons.length ? [maskOf(drawing), drawn("rect", { class: "dim", width, height, mask: "url(#region-mask)" })] : [];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...shade, ...lines, ...way, ...(cross ? [crossAt(cross, CROSS_PX / scale)] : []));
}

/** As `DrawnRoi.labels` has it: without anything that counts, all does but what is ignored. */
function maskOf({ polygons, size: { width, height } }) {
  const of = (isIgnored, fill) => polygons.filter(({ role }) => (role === IGNORE) === isIgnored)
    .map(({ points }) => drawn("polygon", { points: points.join(" "), fill }));
  const looks = of(false, "#000");
  return drawn("mask", { id: "region-mask", maskUnits: "userSpaceOnUse", x: 0, y: 0, width, height },
    drawn("rect", { width, height, fill: looks.length ? "#fff" : "#000" }), ...looks, ...of(true, "#fff"));
}

function kindOf(drawing, polygon) {
  if (polygon.role === LOOK || polygon.role === IGNORE) return polygon.role;
  return `zone-${drawing.zones.indexOf(drawing.zoneOf(polygon)) % ZONE_COLORS}`;
}

/** A bright line on a dark one, to be seen on any image. */
function both(tag, points, kind) {
  return ["under", `over ${kind}`].map((name) => drawn(tag, { class: name, points: points.join(" ") }));
}

function crossAt([x, y], arm) {
  return drawn("path", { class: "cross", d: `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}` });
}
