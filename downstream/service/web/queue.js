// The images of this session on their way to the service: a few at once, patient when it is busy, none lost.

import { send, Trouble } from "./api.js";
import { bytes, figure } from "./format.js";
import { mapOf } from "./heatmap.js";

const AT_ONCE = 4;
// Answers that the service itself calls passing (429 has no limit: the service says when to come back).
const MAX_TIMEOUTS = 2;
// A map of 224 x 224 takes 200 kB: the heat of older images is let go.
const MAX_MAPS = 400;

/**
 * An item is one image: `state` is waiting, sending, failed or done; `answer` what the service said, its map a
 * Float32Array in `map` ({values, width, height} or null); `reason` why it failed.
 */
export class Queue extends EventTarget {
  items = [];
  limits = null;
  keepImages = false;
  #next = 1;
  #running = 0;
  #pausedUntil = 0;
  #stopping = new AbortController();

  add(files) {
    const made = files.map((file) => ({
      key: this.#next++, file, name: file.shownName ?? file.name, state: "waiting", sent: 0, timeouts: 0, reason: "", answer: null, map: null,
    }));
    this.items.push(...made);
    this.#changed("items");
    this.#pump();
    return made;
  }

  retry(items) {
    for (const item of items) Object.assign(item, { url: null, state: "waiting", sent: 0, timeouts: 0, reason: "" });
    this.#changed("items");
    this.#pump();
  }

  /** What waits or is on its way is listed as failed, to be retried; nothing is lost. */
  stop() {
    this.#stopping.abort();
    this.#stopping = new AbortController();
    for (const item of this.items) if (isOpen(item)) this.#fail(item, "Stopped: retry it when you like.");
    this.#changed("items");
  }

  clear() {
    this.stop();
    for (const item of this.items) if (item.thumbnail) URL.revokeObjectURL(item.thumbnail);
    this.items = [];
    this.#changed("items");
  }

  get pauseS() {
    return Math.max(0, Math.ceil((this.#pausedUntil - Date.now()) / 1000));
  }

  #pump() {
    while (this.#running < AT_ONCE) {
      const item = this.items.find((one) => one.state === "waiting");
      if (!item) break;
      item.state = "sending";
      this.#running += 1;
      this.#carry(item, this.#stopping.signal).finally(() => {
        this.#running -= 1;
        this.#pump();
        if (this.#running === 0) this.#changed("idle");
      });
    }
  }

  async #carry(item, signal) {
    for (;;) {
      await this.#pauseOver(signal);
      if (signal.aborted) return;
      try {
        this.#refuseTooLarge(item.file);
        this.#take(item, await send("/api/test_image", this.#form(item), (share) => this.#onSent(item, share), signal));
        return;
      } catch (error) {
        if (signal.aborted) return; // stop() has listed it
        if (error.status === 429 || (error.status === 503 && item.timeouts++ < MAX_TIMEOUTS)) {
          this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + 1000 * (error.retryAfterS ?? 2));
          item.sent = 0;
          this.#changed("pause");
          continue;
        }
        this.#fail(item, error instanceof Trouble ? error.message : "The file cannot be read any more: choose it again.");
        this.#changed("item", item);
        return;
      }
    }
  }

  async #pauseOver(signal) {
    while (this.pauseS > 0 && !signal.aborted) await new Promise((resolve) => setTimeout(resolve, 200));
  }

  #refuseTooLarge(file) {
    const most = this.limits?.max_image_bytes;
    if (file.size === 0) throw new Trouble("The file is empty: choose another.");
    if (most && file.size > most) {
      throw new Trouble(`${bytes(file.size)} are too many: send an image of at most ${bytes(most)}.`);
    }
  }

  #form(item) {
    const form = new FormData();
    form.append("image", item.file, item.file.name || "image");
    form.append("map", "array");
    form.append("keep", String(this.keepImages));
    return form;
  }

  #onSent(item, share) {
    item.sent = share;
    this.#changed("item", item);
  }

  #take(item, answer) {
    const rows = answer.anomaly_map;
    if (rows) {
      item.map = mapOf(rows);
      answer.anomaly_map = null;
    }
    Object.assign(item, { state: "done", answer, reason: "" });
    const withMaps = this.items.filter((one) => one.map);
    for (const old of withMaps.slice(0, -MAX_MAPS)) old.map = null;
    this.#changed("item", item);
    this.dispatchEvent(new CustomEvent("answer", { detail: item }));
  }

  #fail(item, reason) {
    Object.assign(item, { state: "failed", reason });
  }

  #changed(what, item = null) {
    this.dispatchEvent(new CustomEvent("change", { detail: { what, item } }));
  }
}

export const isOpen = (item) => item.state === "waiting" || item.state === "sending";

/** One line of a batch, for people: how many are done, and how they came out by `decide(answer)`. */
export function summary(items, decide) {
  const done = items.filter((item) => item.state === "done");
  const defective = done.filter((item) => decide(item.answer)).length;
  return {
    all: items.length,
    open: items.filter(isOpen).length,
    defective,
    good: done.length - defective,
    failed: items.filter((item) => item.state === "failed").length,
    highest: done.length ? figure(Math.max(...done.map((item) => item.answer.anomaly_score))) : "–",
  };
}
