// Where a defect may be that was not called one: what stands out in the map, although it is below the limit.

const MOST = 5;
// Of the map's highest value: a region is what is connected above it. Higher, while one region is so large that it says
// nothing of where.
const SHARES = [0.6, 0.75, 0.85, 0.93];
const LARGEST = 0.15; // of the map

/** Boxes [left, top, right, bottom] in pixels of an image of `width` x `height`, the one with the highest peak first. */
export function suggestedBoxes(map, width, height) {
  const { values, width: columns, height: rows } = map;
  const highest = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  if (!(highest > 0)) return [];
  let regions = [];
  for (const share of SHARES) {
    regions = regionsAbove(share * highest, values, columns, rows);
    if (regions.every((one) => (one.right + 1 - one.left) * (one.bottom + 1 - one.top) <= LARGEST * values.length)) break;
  }
  regions.sort((one, two) => two.peak - one.peak);
  const [x, y] = [width / columns, height / rows];
  return regions.slice(0, MOST).map(({ left, top, right, bottom }) => [
    Math.floor(left * x), Math.floor(top * y), Math.min(width, Math.ceil((right + 1) * x)), Math.min(height, Math.ceil((bottom + 1) * y)),
  ]);
}

function regionsAbove(limit, values, columns, rows) {
  const seen = new Uint8Array(values.length);
  const regions = [];
  for (let start = 0; start < values.length; start += 1) {
    if (!seen[start] && values[start] > limit) regions.push(grown(start, values, columns, rows, seen, limit));
  }
  return regions;
}

function grown(start, values, columns, rows, seen, limit) {
  const region = { left: columns, top: rows, right: 0, bottom: 0, peak: Number.NEGATIVE_INFINITY };
  const open = [start];
  seen[start] = 1;
  while (open.length > 0) {
    const at = open.pop();
    const [column, row] = [at % columns, Math.floor(at / columns)];
    region.left = Math.min(region.left, column);
    region.right = Math.max(region.right, column);
    region.top = Math.min(region.top, row);
    region.bottom = Math.max(region.bottom, row);
    region.peak = Math.max(region.peak, values[at]);
    const around = [column > 0 && at - 1, column < columns - 1 && at + 1, row > 0 && at - columns, row < rows - 1 && at + columns];
    for (const next of around) {
      if (next === false || seen[next] || !(values[next] > limit)) continue;
      seen[next] = 1;
      open.push(next);
    }
  }
  return region;
}
