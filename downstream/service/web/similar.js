// Images like this one, of those that were kept and of the folder that the service was given.

import { ask, fetched } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { figure, verdictKind, verdictWord } from "./format.js";

const HOW_MANY = 8;
// Going through images with the arrow keys asks for none of those in between.
const PATIENCE_MS = 350;

export class Similar {
  #item = null;
  #timer = null;
  #asking = new AbortController();
  #urls = [];
  isPossible = false;

  constructor() {
    byId("similar-panel").addEventListener("toggle", () => this.#later());
    byId("compare-close").addEventListener("click", () => byId("compare-dialog").close());
  }

  /** `item` has `image()`, which promises the image as a Blob, or null; a result without one is not searched for. */
  show(item) {
    this.#item = item;
    byId("similar-panel").hidden = !this.isPossible || !item;
    byId("similar").replaceChildren(element("p", { class: "faint" }, "Searching…"));
    this.#later();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#asking.abort();
    if (!this.#item || !this.isPossible || !byId("similar-panel").open) return;
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#timer = setTimeout(() => this.#search(this.#item, signal), PATIENCE_MS);
  }

  async #search(item, signal) {
    try {
      const blob = await item.image();
      if (!blob) return say("This image was not kept, so there is nothing to search with. Drop it again to search.");
      const form = new FormData();
      form.append("image", blob, item.answer.name || "image");
      form.append("k", String(HOW_MANY + 1));
      const found = await ask("/api/search", { method: "POST", body: form, signal });
      // What is kept of a result of the history is drawn smaller, so the service cannot know it for the same.
      const own = `/api/images/kept/${item.answer.digest}`;
      const neighbors = found.neighbors.filter((one) => one.image !== own).slice(0, HOW_MANY);
      if (neighbors.length === 0) {
        return say("Nothing to compare with yet: tick “Keep images” and judge some, or start the service with --vectors.");
      }
      await this.#draw(neighbors, found.num_searched, blob, item, signal);
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) say(error.message);
    }
  }

  async #draw(neighbors, searched, blob, item, signal) {
    const images = await Promise.all(neighbors.map((one) => fetched(one.image, { signal }).catch(() => null)));
    if (signal.aborted) return;
    for (const url of this.#urls) URL.revokeObjectURL(url);
    this.#urls = images.map((image) => image && URL.createObjectURL(image));
    const rows = neighbors.map((one, position) => {
      const url = this.#urls[position];
      const button = element("button", { type: "button", onclick: () => this.#compare(one, url, blob, item) },
        url ? element("img", { src: url, alt: "", loading: "lazy" }) : element("span", { class: "gone" }, "gone"),
        element("span", { class: "name" }, one.name || "an image"), known(one),
        element("small", {}, `distance ${figure(one.distance)}`));
      return element("li", {}, button);
    });
    byId("similar").replaceChildren(element("ol", { class: "neighbors" }, ...rows),
      element("p", { class: "faint" }, `The nearest of ${searched}; 0 is the same, 1 has nothing in common.`));
    byId("similar").dataset.of = String(item.answer.id);
  }

  #compare(one, url, blob, item) {
    const own = URL.createObjectURL(blob);
    const figureOf = (source, name, words) => element("figure", {}, source ? element("img", { src: source, alt: name }) : "gone",
      element("figcaption", {}, element("span", { class: "name" }, name), words));
    byId("compare").replaceChildren(
      figureOf(own, item.answer.name, element("small", {}, "this image")), figureOf(url, one.name, known(one)));
    byId("compare-dialog").addEventListener("close", () => URL.revokeObjectURL(own), { once: true });
    byId("compare-dialog").showModal();
  }
}

function known(one) {
  if (one.is_defective !== null) {
    return element("small", { class: "known" }, symbol(verdictKind(one.is_defective)), verdictWord(one.is_defective));
  }
  return element("small", { class: "known" }, one.defect || one.category || "not known");
}

const say = (words) => byId("similar").replaceChildren(element("p", { class: "faint" }, words));
