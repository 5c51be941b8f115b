// The last parts of one station, the newest first.

import { ask, fetched } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { count, figure, moment } from "./format.js";
import { WORDS } from "./stations.js";
import { say } from "./tiles.js";

const LIMIT = 100;
const EACH_MS = 2000; // what comes in between is shown together

export class History {
  #stations;
  #name = null;
  #rows = new Map(); // by id
  #askedAt = 0;
  #newest = null; // of the rows

  constructor(stations) {
    this.#stations = stations;
    byId("image-close").addEventListener("click", () => byId("image-dialog").close());
    byId("image-dialog").addEventListener("close", () => URL.revokeObjectURL(byId("image").src));
  }

  /** Of the station of that name; none hides it. */
  show(name) {
    byId("history").hidden = name === null;
    if (name === this.#name) return;
    this.#name = name;
    this.#rows = new Map();
    this.#askedAt = 0;
    byId("history-rows").replaceChildren();
    byId("history-title").textContent = name ?? "";
    byId("history-words").textContent = "";
    byId("history-now").textContent = "";
    if (name !== null) {
      byId("history-title").focus();
      this.draw();
    }
  }

  draw() {
    const name = this.#name;
    if (name === null) return;
    if (!this.#stations.has(name)) {
      if (!this.#stations.isCut) say(byId("history-words"), "This process of the line has no station of that name.");
      return;
    }
    const seen = this.#stations.look(name);
    const now = byId("history-now");
    const more = [seen.signal && `part ${seen.signal.part}`, seen.why].filter(Boolean).join(". ");
    const words = more ? `${seen.word}: ${more}` : seen.word;
    if (now.dataset.kind !== seen.kind || now.textContent !== words) {
      now.dataset.kind = seen.kind;
      now.replaceChildren(symbol(seen.kind), element("b", {}, seen.word), words.slice(seen.word.length));
    }
    const newest = this.#stations.of(name).signal?.id ?? null;
    const isOld = this.#rows.size === 0 || newest !== this.#newest || Date.now() - this.#askedAt > 5 * EACH_MS; // images come later
    if (!this.#stations.isCut && isOld && Date.now() - this.#askedAt > EACH_MS) this.#refresh(name, newest);
  }

  async #refresh(name, newest) {
    this.#askedAt = Date.now();
    let signals;
    try {
      signals = await ask(`/api/signals?${new URLSearchParams({ station: name, limit: LIMIT })}`);
    } catch (error) {
      return say(byId("history-words"), error.message);
    }
    if (name !== this.#name) return;
    this.#newest = newest;
    const rows = new Map();
    // A row that is there stays what it is, and with it what has the focus.
    for (const signal of signals) {
      const before = this.#rows.get(signal.id);
      rows.set(signal.id, before?.hasImage === signal.has_image ? before : { hasImage: signal.has_image, row: rowOf(signal) });
    }
    const body = byId("history-rows");
    for (const { row } of this.#rows.values()) if (![...rows.values()].some((kept) => kept.row === row)) row.remove();
    [...rows.values()].forEach(({ row }, index) => body.children[index] !== row && body.insertBefore(row, body.children[index] ?? null));
    this.#rows = rows;
    say(byId("history-words"), signals.length ? `${count(signals.length, "part")}, the newest first.` : "No part yet.");
  }
}

function rowOf(signal) {
  const score = signal.score === null ? "–" : `${figure(signal.score)}, ${figure(signal.threshold)}`;
  const image = signal.has_image ? element("button", { type: "button", onclick: () => showImage(signal), "aria-label": `Image of part ${signal.part}` }, "Show") : "–";
  return element("tr", { "data-kind": signal.verdict },
    element("th", { scope: "row" }, String(signal.part), Boolean(signal.name) && element("small", { class: "name" }, ` ${signal.name}`)),
    element("td", { class: "verdict-cell" }, symbol(signal.verdict), WORDS[signal.verdict]), element("td", {}, moment(signal.time)),
    element("td", { class: "number" }, score), element("td", { class: "reason" }, signal.reason || "–"),
    element("td", { class: "number" }, `${Math.round(signal.latency_ms)} ms`), element("td", {}, image));
}

async function showImage(signal) {
  try {
    const url = URL.createObjectURL(await fetched(`/api/signals/${signal.id}/image`));
    byId("image").src = url;
    byId("image").alt = `What station ${signal.station} saw of part ${signal.part}`;
    byId("image-title").textContent = `Part ${signal.part}: ${signal.verdict}`;
    byId("image-dialog").showModal();
  } catch (error) {
    say(byId("history-words"), error.message);
  }
}
