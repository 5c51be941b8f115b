// A map of numbers as heat and as contour lines, on the scale of baselines/contract/heatmap.py: tied to the threshold and the
// same for every image, so that good products are not painted red.

// Of the threshold; color; how much of the image it covers.
export const HEAT = [
  [0.5, [60, 20, 130], 0.0],
  [1.0, [160, 35, 130], 0.35],
  [1.001, [235, 95, 50], 0.5],
  [1.4, [250, 175, 40], 0.6],
  [2.0, [255, 245, 190], 0.65],
];
/** What the opacity slider begins with: the covers above as they are. */
export const DEFAULT_OPACITY = 0.65;

/** A map as the service sends it, rows of numbers, as all here take it. */
export const mapOf = (rows) => ({ values: Float32Array.from(rows.flat()), height: rows.length, width: rows[0].length });

/**
 * Paint `map` into `canvas`, which gets the map's size. Alpha is 1 where the heat is highest. A threshold of 0 or less,
 * which maps with a sign may have, is no unit: then all above it is colored alike.
 */
export function paintHeat(canvas, map, threshold) {
  canvas.width = map.width;
  canvas.height = map.height;
  const image = new ImageData(map.width, map.height);
  for (let i = 0; i < map.values.length; i += 1) colorInto(image.data, 4 * i, share(map.values[i], threshold));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The scale from 0 to twice the threshold, for the legend. */
export function paintScale(canvas) {
  const steps = 160;
  const values = Float32Array.from({ length: steps }, (_, i) => (2 * i) / (steps - 1));
  paintHeat(canvas, { values, width: steps, height: 1 }, 1);
}

function share(value, threshold) {
  if (threshold > 0) return value / threshold;
  return value > threshold ? HEAT.at(-2)[0] : 0;
}

function colorInto(data, at, height) {
  if (!(height > HEAT[0][0])) return;
  let k = 1;
  while (k < HEAT.length - 1 && height > HEAT[k][0]) k += 1;
  const [low, from, coverFrom] = HEAT[k - 1];
  const [high, to, coverTo] = HEAT[k];
  const t = Math.min(1, (height - low) / (high - low));
  for (let channel = 0; channel < 3; channel += 1) data[at + channel] = from[channel] + t * (to[channel] - from[channel]);
  data[at + 3] = (255 * (coverFrom + t * (coverTo - coverFrom))) / DEFAULT_OPACITY;
}

/** The value of the map (stretched over the image) at the share x, y of the image's width and height. */
export function valueAt(map, x, y) {
  const column = Math.min(map.width - 1, Math.max(0, Math.floor(x * map.width)));
  const row = Math.min(map.height - 1, Math.max(0, Math.floor(y * map.height)));
  return map.values[row * map.width + column];
}

// Which edges of a cell a line joins (0 top, 1 right, 2 bottom, 3 left), by which corners are above
// (1 upper left, 2 upper right, 4 lower right, 8 lower left). The two saddles keep their high corners apart.
const LINES = [
  [], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
  [[2, 3]], [[2, 0]], [[0, 1], [2, 3]], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], [],
];

/**
 * The lines along which the map crosses `level`: marching squares, as an SVG path in pixels of an image of
 * `width` x `height`. A value lies in the middle of its cell; outside of the map all is below.
 */
export function contours(map, level, width, height) {
  const { values, width: columns, height: rows } = map;
  const at = (row, column) =>
    row < 0 || column < 0 || row >= rows || column >= columns ? Number.NEGATIVE_INFINITY : values[row * columns + column];
  // From a low value to a high one, where the level lies; from the outside it lies at the border itself.
  const crossing = (from, to) => {
    if (!Number.isFinite(from) || !Number.isFinite(to)) return 0.5;
    return (level - from) / (to - from);
  };
  const place = (x, y) => `${rounded((x + 0.5) * (width / columns))} ${rounded((y + 0.5) * (height / rows))}`;
  const parts = [];
  for (let row = -1; row < rows; row += 1) {
    for (let column = -1; column < columns; column += 1) {
      const [a, b, c, d] = [at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column)];
      const lines = LINES[(a > level) + 2 * (b > level) + 4 * (c > level) + 8 * (d > level)];
      if (lines.length === 0) continue;
      const edges = [
        () => place(column + crossing(a, b), row),
        () => place(column + 1, row + crossing(b, c)),
        () => place(column + crossing(d, c), row + 1),
        () => place(column, row + crossing(a, d)),
      ];
      for (const [from, to] of lines) parts.push(`M${edges[from]()}L${edges[to]()}`);
    }
  }
  return parts.join("");
}

const rounded = (value) => Math.round(100 * value) / 100;
