// What waits for a person's word, the most doubtful first; what was said lately; and all of it as a file.

import { ask, download, fetched } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { takeBack, VERDICTS } from "./feedback.js";
import { count, figure, moment, verdictKind, verdictWord } from "./format.js";

const AT_ONCE = 60;
const SAID = 20;

export class Review {
  #open;
  #trouble;
  #images = [];
  #version = null; // of the model that judged; null: the one in use
  #model = null; // null: the one in use
  #nextSkip = null;
  #current = null; // digest of the image that is being reviewed
  #urls = [];
  #seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) this.#showThumbnail(target);
  });

  /** `open(result)` shows one on the stage; `trouble(error)` tells the person. */
  constructor(open, trouble) {
    this.#open = open;
    this.#trouble = trouble;
    byId("review-start").addEventListener("click", () => this.#take(this.#images[0]));
    byId("next-review").addEventListener("click", () => this.next());
    byId("review-more").addEventListener("click", () => this.#more());
    byId("review-version").addEventListener("change", (event) => {
      this.#version = event.target.value;
      this.refresh();
    });
    byId("feedback-export").addEventListener("click", () => download("/api/feedback/export", "feedback.jsonl").catch(trouble));
  }

  /** Whether the images are gone through one after the other. */
  get isOn() {
    return this.#current !== null;
  }

  /** Of this model from now on; null for the one in use. */
  of(model) {
    if (model !== this.#model) this.#version = null;
    this.#model = model;
  }

  async refresh() {
    this.leave();
    try {
      const [queue, said] = await Promise.all([this.#asked(0), ask(`/api/feedback?limit=${SAID}`)]);
      this.#images = queue.images;
      this.#drawVersions(queue);
      this.#draw(queue);
      this.#drawSaid(said.feedback);
    } catch (error) {
      this.#trouble(error);
    }
  }

  #asked(skip) {
    const wanted = { version: this.#version, model: this.#model };
    const query = new URLSearchParams({ limit: AT_ONCE, skip, ...Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== null)) });
    return ask(`/api/feedback/queue?${query}`);
  }

  /** Images move up by one for each that was spoken of, or kept, meanwhile: those that are here already stay once. */
  async #more() {
    byId("review-more").disabled = true;
    try {
      const queue = await this.#asked(this.#nextSkip);
      const shown = this.#images.length;
      const known = new Set(this.#images.map(({ result }) => result.digest));
      this.#images = [...this.#images, ...queue.images.filter(({ result }) => !known.has(result.digest))];
      this.#draw(queue);
      byId("review-list").children[shown]?.firstElementChild.focus();
    } catch (error) {
      this.#trouble(error);
    } finally {
      byId("review-more").disabled = false;
    }
  }

  /** Another image is looked at: the way through them is left. */
  leave() {
    this.#current = null;
    byId("next-review").hidden = true;
  }

  /** The image after the one that is looked at; after the last, the list again. */
  next() {
    const at = this.#images.findIndex(({ result }) => result.digest === this.#current);
    const following = this.#images[at + 1];
    if (following) return this.#take(following);
    location.hash = "#review";
    return undefined;
  }

  step(by) {
    const buttons = [...byId("review-list").querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    buttons[at < 0 ? 0 : at + by]?.focus();
  }

  #take(image) {
    if (!image) return;
    this.#open(image.result).then(() => {
      this.#current = image.result.digest;
      byId("next-review").hidden = false;
    });
  }

  /** Only where there is a choice. One that has nothing left, or is of another model, is left. */
  #drawVersions({ version, versions }) {
    const names = versions.map((one) => one.version);
    const options = versions.map((one) => element("option", { value: one.version },
      `${one.is_in_use ? "the version in use" : "version"} ${one.version.slice(0, 8)} (${one.waiting})`));
    byId("review-versions").hidden = versions.length < 2 && names.includes(version);
    byId("review-version").replaceChildren(...options);
    if (names.includes(version)) byId("review-version").value = version;
    else if (this.#version !== null) {
      this.#version = null;
      this.refresh();
    }
  }

  #draw({ total, next_skip: nextSkip }) {
    this.#nextSkip = nextSkip;
    byId("review-more").hidden = nextSkip === null;
    for (const url of this.#urls) URL.revokeObjectURL(url);
    this.#urls = [];
    const whose = this.#model === null ? "" : ` of ${this.#model}`;
    byId("review-count").textContent = total ? `${count(total, "image")}${whose} to review` : whose && `nothing${whose} to review`;
    byId("review-start").disabled = total === 0;
    const rows = this.#images.map((image) => this.#row(image));
    const nothing = element("li", { class: "empty" }, "Nothing waits. Tick “Keep images” under Inspect, and what is judged comes here.");
    byId("review-list").replaceChildren(...(rows.length ? rows : [nothing]));
  }

  #row(image) {
    const { result } = image;
    const kind = verdictKind(result.is_defective);
    const thumbnail = element("span", { class: "thumbnail" });
    Object.assign(thumbnail, { digest: result.digest });
    this.#seen.observe(thumbnail);
    return element("li", {}, element("button", { type: "button", onclick: () => this.#take(image) }, thumbnail,
      element("span", { class: "name" }, result.name || "an image"),
      element("span", { class: "known" }, symbol(kind), `${verdictWord(result.is_defective)} ${figure(result.anomaly_score)}`),
      element("small", {}, reasonOf(image))));
  }

  async #showThumbnail(target) {
    this.#seen.unobserve(target);
    const blob = await fetched(`/api/images/kept/${target.digest}`).catch(() => null);
    if (!blob || !target.isConnected) return;
    this.#urls.push(URL.createObjectURL(blob));
    target.replaceChildren(element("img", { src: this.#urls.at(-1), alt: "" }));
  }

  #drawSaid(feedback) {
    if (feedback.length === 0) return byId("said").replaceChildren(element("p", { class: "empty" }, "Nobody has said anything yet."));
    const rows = feedback.map((one) => {
      const isOver = one.takes_back !== null || one.taken_back_by !== null;
      const words = one.takes_back !== null ? `took back number ${one.takes_back}` : VERDICTS[one.verdict];
      const state = one.taken_back_by !== null ? " (taken back)" : "";
      const button = element("button", { type: "button", onclick: () => this.#takeBack(one.id), "aria-label": `Take back: ${words}, ${one.name}` }, "Take back");
      return element("li", {}, element("span", {}, `${one.id}. `, element("b", {}, words), state),
        element("span", { class: "name" }, one.name || "an image"),
        element("small", {}, `${one.by}, ${moment(one.created)}, model ${one.model} ${one.model_version.slice(0, 8)}`), !isOver && button);
    });
    return byId("said").replaceChildren(element("ul", { role: "list" }, ...rows));
  }

  async #takeBack(id) {
    try {
      await takeBack(id);
    } catch (error) {
      this.#trouble(error);
    }
    await this.refresh();
  }

}

function reasonOf({ result, reason, spreads, distance, disagreement }) {
  if (reason === "statistics disagree") return `its two statistics disagree: ${disagreement.toFixed(1)} deviations apart`;
  if (reason === "unlike the others") return `least like the others: ${figure(distance)} to the nearest`;
  const side = result.anomaly_score > result.threshold ? "above" : "below";
  return spreads === null ? `near the threshold, ${side} it` : `${spreads.toFixed(1)} spreads ${side} the threshold`;
}
