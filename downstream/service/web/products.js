// All models of the service side by side: images today, the share of defective ones, the days before, the last change.

import { ask } from "./api.js";
import { byId, drawn, element, symbol } from "./elements.js";
import { count, moment, percent } from "./format.js";

const BAR = 10; // of a day, in units of the drawing

export class Products {
  #open;
  #review;
  #trouble;

  /** `open(model)` shows what a model judged, `review(model)` what waits of it; `trouble(error)` tells the person. */
  constructor(open, review, trouble) {
    this.#open = open;
    this.#review = review;
    this.#trouble = trouble;
  }

  async refresh() {
    const today = new Date();
    today.setHours(0, 0, 0, 0); // where the reader is, and not in Greenwich
    try {
      const { products } = await ask(`/api/products?today=${encodeURIComponent(today.toISOString())}`);
      byId("products-count").textContent = count(products.length, "model");
      byId("products-list").replaceChildren(...products.map((product) => this.#card(product)));
    } catch (error) {
      this.#trouble(error);
    }
  }

  step(by) {
    const buttons = [...byId("products-list").querySelectorAll("button:first-child")]; // of each model its history
    const at = buttons.indexOf(document.activeElement);
    buttons[at < 0 ? 0 : at + by]?.focus();
  }

  #card(product) {
    const { model, images_today: images, defective_today: defective, last_change: change } = product;
    const share = images ? `${defective} defective, ${percent(defective, images)}` : "none judged";
    const known = element("span", { class: defective ? "known some" : "known" }, symbol(defective ? "defective" : images ? "good" : "waiting"), share);
    const history = element("button", { type: "button", onclick: () => this.#open(model) }, "History");
    history.setAttribute("aria-label", `History of ${model}`);
    const review = element("button", { type: "button", onclick: () => this.#review(model), "aria-label": `Review of ${model}` }, "Review");
    const rows = [["Drift", driftWords(product.drift)], ["To review", count(product.waiting, "image")], ["Last image", product.last_image ? moment(product.last_image) : "none yet"],
      ["Last change", change ? `${change.action}, ${moment(change.at)}` : "none yet"]];
    return element("li", {},
      element("h3", {}, model, product.is_in_use && element("small", {}, "in use")),
      element("p", { class: "today" }, element("span", {}, `${count(images, "image")} today`), known),
      trend(product.trend), element("p", { class: "faint" }, trendWords(product.trend)),
      element("dl", {}, ...rows.flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)])),
      element("p", { class: "choices" }, history, review));
  }
}

const driftWords = (drift) => drift === "drifted" ? element("span", { class: "known" }, symbol("defective"), "drifted: see Camera and drift")
  : drift === "as before" ? element("span", { class: "known" }, symbol("good"), "none") : drift === "learning" ? "not known yet" : "not known: its model is not in memory";

/** A bar a day: all images, and of them the defective ones at its foot. */
function trend(days) {
  const most = Math.max(1, ...days.map((day) => day.images));
  const bars = days.flatMap((day, at) => ["good", "bad"].map((kind) => {
    const height = (100 * (kind === "bad" ? day.defective : day.images)) / most;
    return drawn("rect", { class: kind, x: at * BAR + 1, y: 100 - height, width: BAR - 2, height });
  }));
  return drawn("svg", { class: "trend", viewBox: `0 0 ${BAR * days.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars);
}

/** The same in words. */
function trendWords(days) {
  const sum = (part, name) => part.reduce((total, day) => total + day[name], 0);
  const half = days.length / 2;
  const [before, lately] = [days.slice(0, half), days.slice(half)].map((part) => {
    const images = sum(part, "images");
    return images ? `${percent(sum(part, "defective"), images)} of ${images}` : "no image";
  });
  return `Defective in the last ${half} days: ${lately}; in the ${half} before: ${before}.`;
}
