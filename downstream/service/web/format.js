// How figures, times and verdicts are said.

/** Four digits: enough to tell scores apart, few enough to read. */
export function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** Of the whole, in two digits. */
export const percent = (part, whole) => `${Number(((100 * part) / whole).toPrecision(2))} %`;

/** Never 100 %: no decision is that sure. */
export function sureness(confidence) {
  const share = 100 * confidence;
  if (share > 99.9) return "over 99.9 % sure";
  return `${share.toFixed(share >= 99 ? 1 : 0)} % sure`;
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

export function bytes(number) {
  return number < 1 << 20 ? `${Math.max(1, Math.round(number / 1024))} KiB` : `${(number / 2 ** 20).toFixed(1)} MiB`;
}

/** In the reader's own zone, to the second. */
export function moment(iso) {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
}

export const verdictWord = (isDefective) => (isDefective ? "Defective" : "Good");
export const verdictKind = (isDefective) => (isDefective ? "defective" : "good");
