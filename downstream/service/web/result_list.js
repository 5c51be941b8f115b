// The images of this session as a list: how far each one is, how it came out, and why one failed.

import { byId, element, symbol } from "./elements.js";
import { isOpen, summary } from "./queue.js";
import { count, figure, verdictKind, verdictWord } from "./format.js";

const THUMBNAIL_PX = 96;

export class ResultList {
  #queue;
  #session;
  #select;
  #rows = new Map(); // item -> its elements
  #selected = null;
  #seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      this.#seen.unobserve(entry.target);
      showThumbnail(entry.target.item);
    }
  });

  constructor(queue, session, select) {
    this.#queue = queue;
    this.#session = session;
    this.#select = select;
    for (const id of ["show-only", "order"]) byId(id).addEventListener("change", () => this.arrange());
    byId("stop").addEventListener("click", () => queue.stop());
    byId("retry-all").addEventListener("click", () => queue.retry(queue.items.filter((item) => item.state === "failed")));
    byId("judge-again").addEventListener("click", () => queue.retry(this.#judgedByOthers()));
    byId("clear").addEventListener("click", () => queue.clear());
  }

  /** The items that are listed, in the order in which they are. */
  get listed() {
    return [...byId("items").children].map((row) => row.item);
  }

  select(item) {
    const before = this.#selected;
    this.#selected = item;
    for (const one of [before, item]) if (this.#rows.has(one)) this.#update(one);
    if (this.#rows.has(item)) showWithin(byId("items"), this.#rows.get(item).row);
  }

  focus() {
    this.#rows.get(this.#selected)?.open.focus({ preventScroll: true });
  }

  /** One item changed. */
  update(item) {
    if (this.#rows.has(item)) this.#update(item);
    this.#drawBatch();
  }

  /** Items came or went, or all are decided anew: which are listed, and in what order. */
  arrange() {
    const all = new Set(this.#queue.items);
    for (const item of this.#rows.keys()) if (!all.has(item)) this.#rows.delete(item);
    for (const item of all) {
      if (!this.#rows.has(item)) this.#rows.set(item, this.#made(item));
      this.#update(item);
    }
    const only = byId("show-only").value;
    const items = this.#queue.items.filter((item) => !only || this.#kind(item) === only);
    if (byId("order").value === "score") {
      const score = (item) => item.answer?.anomaly_score ?? Number.NEGATIVE_INFINITY;
      items.sort((first, second) => score(second) - score(first));
    }
    const wanted = items.map((item) => this.#rows.get(item).row);
    const now = byId("items").children;
    if (wanted.length !== now.length || wanted.some((row, i) => row !== now[i])) byId("items").replaceChildren(...wanted);
    this.#drawBatch();
  }

  #kind(item) {
    return item.state === "done" ? verdictKind(this.#session.isDefective(item.answer)) : isOpen(item) ? "waiting" : "failed";
  }

  #judgedByOthers() {
    return this.#queue.items.filter((item) => item.state === "done" && item.answer.model !== this.#session.model?.model);
  }

  #made(item) {
    const parts = {
      image: element("span", { class: "thumbnail" }),
      name: element("span", { class: "name" }, item.name || "an image"),
      state: element("span", { class: "state" }),
      progress: element("progress", { max: 1, value: 0, "aria-label": `Sending ${item.name}`, hidden: true }),
    };
    parts.open = element("button", { type: "button", class: "open", tabindex: -1, onclick: () => this.#select(item) },
      parts.image, element("span", { class: "two" }, parts.name, parts.state, parts.progress));
    parts.retry = element("button", { type: "button", class: "retry", hidden: true, onclick: () => this.#queue.retry([item]) }, "Retry");
    parts.retry.setAttribute("aria-label", `Retry ${item.name}`);
    parts.row = element("li", {}, parts.open, parts.retry);
    parts.row.item = item;
    item.showThumbnail = (url) => parts.image.replaceChildren(element("img", { src: url, alt: "" }));
    this.#seen.observe(parts.row);
    return parts;
  }

  #update(item) {
    const { row, open, state, progress, retry } = this.#rows.get(item);
    const isSelected = item === this.#selected;
    open.tabIndex = isSelected || (!this.#rows.has(this.#selected) && item === this.#queue.items[0]) ? 0 : -1;
    if (isSelected) open.setAttribute("aria-current", "true");
    else open.removeAttribute("aria-current");
    const kind = this.#kind(item);
    const words = wordsOf(item, this.#session);
    retry.hidden = item.state !== "failed";
    progress.hidden = item.state !== "sending";
    progress.value = item.sent;
    if (row.dataset.state === kind && state.textContent === words) return;
    row.dataset.state = kind;
    state.replaceChildren(symbol(kind), words);
  }

  #drawBatch() {
    const { items } = this.#queue;
    byId("batch").hidden = items.length === 0;
    if (items.length === 0) return;
    const found = summary(items, (answer) => this.#session.isDefective(answer));
    const pause = this.#queue.pauseS;
    const progress = byId("batch-progress");
    progress.max = found.all;
    progress.value = found.all - found.open;
    progress.hidden = found.open === 0;
    byId("batch-words").textContent = pause > 0 && found.open > 0
      ? `The service is busy: going on in ${pause} s. ${found.all - found.open} of ${found.all} done.`
      : found.open > 0 ? `${found.all - found.open} of ${count(found.all, "image")} done` : batchWords(found);
    byId("stop").hidden = found.open === 0;
    byId("retry-all").hidden = found.failed === 0 || found.open > 0;
    byId("judge-again").hidden = found.open > 0 || this.#judgedByOthers().length === 0;
    byId("clear").hidden = found.open > 0;
    for (const id of ["show-only", "order"]) byId(id).closest("label").hidden = found.all < 2;
  }
}

export function batchWords({ all, defective, good, failed }) {
  return `${count(all, "image")}: ${defective} defective, ${good} good${failed ? `, ${failed} failed` : ""}`;
}

function wordsOf(item, session) {
  if (item.state === "waiting") return "waiting";
  if (item.state === "failed") return item.reason;
  if (item.state === "sending") return item.sent >= 1 ? "being judged" : "sending";
  return `${verdictWord(session.isDefective(item.answer))} ${figure(item.answer.anomaly_score)}`;
}

/** Scroll the list alone: scrollIntoView would move the whole page of a phone away from the verdict. */
function showWithin(list, row) {
  const [outer, inner] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop -= outer.top - inner.top;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

async function showThumbnail(item) {
  if (!item.thumbnail) {
    try {
      const bitmap = await createImageBitmap(item.file, { resizeHeight: THUMBNAIL_PX, resizeQuality: "medium" });
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      item.thumbnail = URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg" }));
    } catch {
      return; // not a kind that this browser can show; the service may well
    }
  }
  item.showThumbnail(item.thumbnail);
}
