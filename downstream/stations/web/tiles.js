// Each station as a tile: what it says just now in word, color and shape, what it saw, and how it does.

import { byId, element, symbol } from "./elements.js";
import { figure } from "./format.js";

const ROWS = {
  score: "Score, threshold", parts: "Parts", counts: "Pass, fail, fault", rate: "Rate", latency: "Latency p50, p99", budget: "Budget",
  dropped: "Frames dropped", model: "Model",
};

export class Tiles {
  #stations;
  #tiles = new Map();

  constructor(stations) {
    this.#stations = stations;
  }

  draw() {
    const names = this.#stations.names;
    if (names.join() !== [...this.#tiles.keys()].join()) {
      this.#tiles = new Map(names.map((name) => [name, made(name)]));
      byId("tiles").replaceChildren(...[...this.#tiles.values()].map((tile) => tile.whole));
    }
    for (const [name, tile] of this.#tiles) this.#fill(name, tile);
  }

  focus(name) {
    (this.#tiles.get(name)?.link ?? byId("main")).focus();
  }

  /** The picture of a part. It may be an earlier one than the verdict's, and says so. */
  picture(name, url, signal) {
    const tile = this.#tiles.get(name);
    if (!tile) return;
    tile.image.hidden = !url;
    if (url) tile.image.src = url;
    else tile.image.removeAttribute("src");
    tile.image.alt = url ? `What station ${name} saw` : "";
    say(tile.caption, !url ? "No image of this part" : signal ? `Part ${signal.part}: ${signal.verdict}` : "An earlier part");
  }

  #fill(name, tile) {
    const seen = this.#stations.look(name);
    const { state, figures, signal } = this.#stations.of(name);
    if (tile.whole.dataset.kind !== seen.kind) {
      tile.whole.dataset.kind = seen.kind;
      tile.icon.replaceChildren(symbol(seen.kind));
    }
    say(tile.word, seen.word);
    say(tile.part, seen.signal ? `part ${seen.signal.part}${seen.signal.name ? `, ${seen.signal.name}` : ""}` : "");
    say(tile.why, seen.why);
    const { p50, p99 } = figures.latency_ms;
    const words = {
      score: signal && signal.score !== null ? `${figure(signal.score)}, ${figure(signal.threshold)}` : "–",
      parts: figures.waiting ? `${state.parts}; ${figures.waiting} wait` : String(state.parts),
      counts: `${state.passed}, ${state.failed}, ${state.faults}`,
      rate: figures.rate_per_s >= 1 ? `${figure(figures.rate_per_s)} a second` : `${figure(60 * figures.rate_per_s)} a minute`,
      latency: p50 === null ? "–" : `${Math.round(p50)}, ${Math.round(p99)} ms`,
      budget: `${figure(figures.budget_ms)} ms`,
      dropped: String(state.dropped),
      model: figures.model,
    };
    for (const [row, text] of Object.entries(words)) say(tile.rows[row], text);
    tile.rows.latency.classList.toggle("over", p99 !== null && p99 > figures.budget_ms);
  }
}

function made(name) {
  const link = element("a", { href: `#station/${name}` }, name);
  const [icon, word, part, why] = ["span", "b", "span", "p"].map((tag) => element(tag));
  const [image, caption] = [element("img", { alt: "", hidden: true }), element("figcaption", {}, "No image yet")];
  const rows = Object.fromEntries(Object.keys(ROWS).map((row) => [row, element("dd")]));
  const list = Object.entries(ROWS).map(([row, words]) => element("div", {}, element("dt", {}, words), rows[row]));
  why.className = "why";
  const whole = element("li", { class: "tile" }, element("h2", {}, link), element("p", { class: "said" }, icon, word, part), why,
    element("figure", {}, image, caption), element("dl", {}, ...list));
  return { whole, link, icon, word, part, why, image, caption, rows };
}

/** Only where it is another text: what is selected or read aloud stays. */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}
