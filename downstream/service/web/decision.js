// The service's rule, so that the page can decide again while the threshold moves.

/** Whether a result is defective by `value`. `model` is what GET /api/threshold says. */
export function isDefective(result, value, model) {
  const needsRegion = model.map_threshold !== null && model.minimum_area_px > 0;
  return result.anomaly_score > value && (!needsRegion || result.regions.length > 0);
}

/** How sure that is, from 0.5 to 1: Student's t at the distance to the threshold in deviations of the normals. */
export function confidence(score, value, normalScores) {
  const n = normalScores.length;
  if (n < 2) return 0.5;
  const mean = normalScores.reduce((sum, one) => sum + one, 0) / n;
  const deviation = Math.sqrt(normalScores.reduce((sum, one) => sum + (one - mean) ** 2, 0) / (n - 1));
  if (deviation === 0) return 0.5;
  return studentT(Math.abs(score - value) / (deviation * Math.sqrt(1 + 1 / n)), n - 1);
}

/** What would change if `value` replaced `inForce`, among earlier results and the normals. */
export function flips(results, model, value, inForce = model.value) {
  const found = { toDefective: 0, toGood: 0, results: results.length };
  for (const result of results) {
    const before = isDefective(result, inForce, model);
    if (before !== isDefective(result, value, model)) found[before ? "toGood" : "toDefective"] += 1;
  }
  const above = (limit) => model.normal_scores.filter((score) => score > limit).length;
  return { ...found, normals: model.normal_scores.length, normalsAbove: above(value), normalsAboveNow: above(inForce) };
}

/** Student's t distribution function for t >= 0. */
export function studentT(t, freedom) {
  return 1 - 0.5 * incompleteBeta(freedom / (freedom + t * t), freedom / 2, 0.5);
}

/** The regularised incomplete beta function, by its continued fraction (Lentz's way of evaluating it). */
function incompleteBeta(x, a, b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges quickly below this point only; above, the function is one minus its mirror image.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
  const away = (value) => (Math.abs(value) < 1e-300 ? 1e-300 : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m <= 300; m += 1) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    fraction *= c * d;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    fraction *= c * d;
    if (Math.abs(c * d - 1) < 1e-14) break;
  }
  return front * fraction;
}

/** Stirling's series, after shifting the argument to where a few terms are exact to 1e-14. */
function logGamma(x) {
  let shift = 0;
  for (; x < 15; x += 1) shift += Math.log(x);
  const inverse = 1 / (x * x);
  const series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / x;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series - shift;
}
