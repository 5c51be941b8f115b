// The threshold's panel: a slider that decides again at once, what would flip, and the buttons that keep it.

import { byId, element, symbol } from "./elements.js";
import { axisOf, drawStrip } from "./score_axis.js";
import { count, figure, percent } from "./format.js";

export class ThresholdPanel {
  #session;
  #trouble;
  #current = null;
  #axis = null;

  /** `trouble(error)` tells the person. */
  constructor(session, trouble) {
    this.#session = session;
    this.#trouble = trouble;
    byId("threshold").addEventListener("input", (event) => session.try(Number(event.target.value)));
    byId("threshold-number").addEventListener("input", (event) => {
      const value = event.target.valueAsNumber;
      if (Number.isFinite(value)) session.try(value);
    });
    byId("threshold-number").addEventListener("keydown", (event) => event.key === "Enter" && this.#keep(session.trial));
    byId("keep-threshold").addEventListener("click", () => this.#keep(session.trial));
    byId("own-threshold").addEventListener("click", () => this.#keep(null));
    byId("undo-threshold").addEventListener("click", () => session.try(session.model.value));
    session.addEventListener("model", () => this.#onModel());
    session.addEventListener("trial", () => this.#onTrial());
    session.addEventListener("recent", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(byId("strip"));
  }

  /** The answer that is looked at, or null. */
  show(answer) {
    this.#current = answer && answer.model === this.#session.model?.model ? answer : null;
    this.#draw();
  }

  async #keep(value) {
    if (!this.#session.model || (value !== null && !this.#session.isOnTrial)) return;
    try {
      await this.#session.keep(value);
    } catch (error) {
      this.#trouble(error);
    }
  }

  #onModel() {
    const { model } = this.#session;
    for (const id of ["threshold", "threshold-number"]) byId(id).disabled = false;
    const own = `The model's own is ${figure(model.fitted)}: ${model.why}`;
    byId("threshold-why").textContent = own;
    this.#axis = axisOf(model, model.value, this.#session.recent);
    if (this.#current?.model !== model.model) this.#current = null;
    this.#onTrial();
  }

  #onTrial() {
    const { model, trial } = this.#session;
    if (trial < this.#axis.from || trial > this.#axis.to) this.#axis = axisOf(model, trial, this.#session.recent);
    const slider = byId("threshold");
    Object.assign(slider, { min: this.#axis.from, max: this.#axis.to });
    if (Number(slider.value) !== trial) slider.value = trial;
    const number = byId("threshold-number");
    if (document.activeElement !== number) number.value = Number(trial.toPrecision(6));
    this.#draw();
  }

  #draw() {
    const { model, trial, recent } = this.#session;
    if (!model) return;
    drawStrip(byId("strip"), { model, trial, recent, axis: this.#axis, current: this.#current });
    const { isOnTrial } = this.#session;
    const mayKeep = this.#session.may("configure");
    byId("keep-threshold").disabled = !isOnTrial || !mayKeep;
    byId("undo-threshold").disabled = !isOnTrial;
    byId("own-threshold").disabled = model.value === model.fitted || !mayKeep;
    byId("threshold-panel").dataset.trial = isOnTrial ? "yes" : "no";
    this.#drawFlips();
  }

  #drawFlips() {
    const found = this.#session.flips();
    const { model, trial, isOnTrial } = this.#session;
    const share = (number) => (found.normals ? ` (${percent(number, found.normals)})` : "");
    const flipped = found.toDefective + found.toGood;
    const rows = [];
    if (isOnTrial) {
      rows.push(element("p", { class: "trial-words" }, `On trial: ${figure(trial)}, in force ${figure(model.value)}. Nothing is kept yet.`));
      rows.push(row("flips-results", flipped, `of ${count(found.results, "recent result")} would flip`,
        [["defective", `${found.toDefective} to defective`], ["good", `${found.toGood} to good`]]));
      rows.push(row("flips-normals", Math.abs(found.normalsAbove - found.normalsAboveNow), `of ${count(found.normals, "normal")} would flip`,
        [["defective", `${found.normalsAbove} called defective${share(found.normalsAbove)}, now ${found.normalsAboveNow}`]]));
    } else {
      const normals = `${found.normalsAboveNow} of ${count(found.normals, "normal")} called defective${share(found.normalsAboveNow)}`;
      rows.push(element("p", {}, `In force. ${normals}. Move it to see what would flip.`));
    }
    byId("flips").replaceChildren(...rows);
    byId("threshold").setAttribute("aria-valuetext",
      `${figure(trial)}; ${flipped} of ${found.results} recent results would flip; ${found.normalsAbove} of ${found.normals} normals called defective`);
  }
}

function row(id, number, words, parts) {
  const shown = parts.map(([kind, text]) => element("span", {}, symbol(kind), text));
  return element("p", { id, "data-flips": number, class: "flip" }, element("b", {}, String(number)), ` ${words}`, element("span", { class: "parts" }, ...shown));
}
