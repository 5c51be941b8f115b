// The versions of the model in use: those that learned from feedback are put into use, and out of it, by a click.

import { ask } from "./api.js";
import { byId, element } from "./elements.js";
import { moment } from "./format.js";

export class Versions {
  #session;
  #tell;
  #model = null; // whose versions are listed

  /** `tell` has trouble(error), announce(words), changed(), once another version is in use, and prove(number). */
  constructor(session, tell) {
    this.#session = session;
    this.#tell = tell;
    byId("versions-panel").addEventListener("toggle", () => byId("versions-panel").open && this.refresh());
    byId("roll-back").addEventListener("click", () => this.change(this.#path("/api/roll_back")));
  }

  async refresh() {
    try {
      const found = await ask("/api/versions");
      this.#model = found.model;
      this.#draw(found);
    } catch (error) {
      this.#tell.trouble(error);
    }
  }

  /** Put another version into use; true if it is. */
  async change(path, body) {
    try {
      const found = await ask(path, { method: "POST", body });
      if (found.model === this.#model) this.#draw(found);
      this.#tell.announce(`Version ${found.versions.find((one) => one.is_in_use).number} judges from now on.`);
      await this.#tell.changed();
      return true;
    } catch (error) {
      this.#tell.trouble(error);
      return false;
    }
  }

  /** Of the model whose versions are listed, also where another one came into use meanwhile. */
  #path(path) {
    return `${path}?${new URLSearchParams({ model: this.#model })}`;
  }

  #draw({ versions, history }) {
    const mayChange = this.#session.may("configure");
    byId("versions-state").textContent = `${versions.find((one) => one.is_in_use)?.number ?? "–"} of ${versions.length}`;
    byId("roll-back").hidden = !mayChange || history.length < 2;
    byId("versions").replaceChildren(...versions.map((one) => {
      const use = element("button", { type: "button", onclick: () => this.change(this.#path("/api/promote"), { version: one.number }) }, "Use it");
      use.setAttribute("aria-label", `Use version ${one.number}`);
      const prove = one.learned && element("button", { type: "button", onclick: () => this.#tell.prove(one.number), "aria-label": `Proof of version ${one.number}` }, "Proof");
      const learned = one.learned ? `learned from ${one.learned.good} good and ${one.learned.defective} defective images` : "fitted";
      return element("li", {}, element("span", {}, element("b", {}, `Version ${one.number}`), one.is_in_use ? ", in use" : ""),
        element("small", {}, `${learned}, ${moment(one.made)}`),
        element("span", { class: "choices" }, prove, mayChange && !one.is_in_use && use));
    }));
  }
}
