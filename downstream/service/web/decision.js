// The service's rule, so that the page can decide again while the threshold moves.

/** Whether a result is defective by `value`. `model` is what GET /api/threshold says. */
export function isDefective(result, value, model) {
  const needsRegion = model.map_threshold !== null && model.minimum_area_px > 0;
  return result.anomaly_score > value && (!needsRegion || result.regions.length > 0);
}

/**
 * How sure that is, from 0.5 to 1. `curve` is the service's: pairs of distance to the threshold and confidence, joined by
 * lines. Without one it is not known.
 */
export function confidence(score, value, curve) {
  if (curve.length === 0) return 0.5;
  const distance = Math.abs(score - value);
  const next = curve.findIndex(([far]) => far >= distance);
  if (next < 0) return curve.at(-1)[1];
  if (next === 0) return curve[0][1];
  const [[near, low], [far, high]] = [curve[next - 1], curve[next]];
  return low + ((distance - near) / (far - near)) * (high - low);
}

/** What would change if `value` replaced `inForce`, among earlier results and the normals. */
export function flips(results, model, value, inForce = model.value) {
  const changes = { toDefective: 0, toGood: 0, results: results.length };
  for (const result of results) {
    const before = isDefective(result, inForce, model);
    if (before !== isDefective(result, value, model)) changes[before ? "toGood" : "toDefective"] += 1;
  }
  const above = (limit) => model.normal_scores.filter((score) => score > limit).length;
  return { ...changes, normals: model.normal_scores.length, normalsAbove: above(value), normalsAboveNow: above(inForce) };
}
