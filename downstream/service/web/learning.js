// Learning from what was said, begun by a click; how it goes; and the proof of what came of it, beside the version in use.

import { ask, fetched } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { count, moment, verdictKind, verdictWord } from "./format.js";

const ASKED_EVERY_MS = 500;

export class Learning {
  #session;
  #tell;
  #shown = null; // {model, version} of the proof that is looked at
  #urls = [];
  #isWaiting = false;
  #model = null; // null: the one in use

  /** `tell` has trouble(error), announce(words) and use(path, body), which puts another version into use. */
  constructor(session, tell) {
    this.#session = session;
    this.#tell = tell;
    byId("learn").addEventListener("click", () => this.#begin());
    byId("proof-use").addEventListener("click", () => this.#use("/api/promote", { version: this.#shown.version }));
    byId("proof-back").addEventListener("click", () => this.#use("/api/roll_back"));
  }

  /** Of this model from now on; null for the one in use. */
  of(model) {
    this.#model = model;
    if (this.#shown?.model === this.#name) return;
    this.#shown = null; // no proof of one model stands beside buttons for another
    byId("proof").hidden = true;
  }

  get #name() {
    return this.#model ?? this.#session.model?.model;
  }

  /** How it goes, or went last. */
  async refresh() {
    byId("learn").hidden = !this.#session.may("configure");
    try {
      await this.#draw(await ask("/api/learn"));
    } catch (error) {
      this.#tell.trouble(error);
    }
  }

  /** The proof of one of the versions. */
  async show(version) {
    const model = this.#name;
    const query = new URLSearchParams({ model, version });
    try {
      const proof = await ask(`/api/proof?${query}`);
      if (model !== this.#name) return false; // another one was chosen meanwhile
      this.#shown = { model, version };
      this.#drawProof(proof);
      return true;
    } catch (error) {
      this.#tell.trouble(error);
      return false;
    }
  }

  async #begin() {
    byId("learn").disabled = true;
    try {
      await this.#draw(await ask(`/api/learn?${this.#query()}`, { method: "POST" }));
    } catch (error) {
      this.#tell.trouble(error);
      byId("learn").disabled = false;
    }
  }

  #query() {
    const model = this.#name; // not known before the service has answered once: then it is the one in use
    return new URLSearchParams(model ? { model } : {});
  }

  /** Of the model that the proof is of. */
  async #use(path, body) {
    const query = new URLSearchParams({ model: this.#shown.model });
    if (await this.#tell.use(`${path}?${query}`, body) && this.#shown) await this.show(this.#shown.version);
  }

  async #draw(found) {
    const runs = found.state === "runs";
    byId("learn").disabled = runs;
    byId("learn-progress").hidden = !runs;
    byId("learn-progress").max = found.steps;
    byId("learn-progress").value = found.number - 0.5;
    byId("learn-words").textContent = wordsOf(found);
    if (runs) return this.#wait();
    const model = this.#name;
    const isOther = this.#shown?.model !== model;
    if (found.state === "done" && found.model === model && (isOther || this.#shown.version < found.version)) await this.show(found.version);
    else if (isOther) byId("proof").hidden = true;
    return undefined;
  }

  /** One question after the other, as long as it runs. */
  #wait() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    setTimeout(async () => {
      this.#isWaiting = false;
      const found = await ask("/api/learn").catch(() => null);
      if (found === null) return this.#wait();
      if (found.state !== "runs") this.#tell.announce(wordsOf(found));
      return this.#draw(found);
    }, ASKED_EVERY_MS);
  }

  #drawProof(proof) {
    const { version, in_use: inUse, learned, before, after } = proof;
    const mayChange = this.#session.may("configure");
    byId("proof").hidden = false;
    byId("proof-title").textContent = `Version ${version} beside version ${inUse}`;
    const tells = learned.defective === 0 ? "" : learned.tells_defects ? ", and can tell such defects" : ", and cannot tell such defects yet";
    byId("proof-learned").textContent = `It learned from ${learned.good} good and ${learned.defective} defective images${tells}. `
      + `These figures are of ${count(after.good + after.defective, "image")} that no version learns from.`;
    const columns = [`version ${inUse}${proof.is_current ? ", in use" : ""}`, `version ${version}`];
    const row = (title, words) => element("tr", {}, element("th", { scope: "row" }, title),
      ...[before, after].map((figures, at) => element("td", { "data-label": `${columns[at]}:` }, words(figures))));
    byId("proof-figures").replaceChildren(
      element("thead", {}, element("tr", {}, element("td", {}), ...columns.map((words) => element("th", { scope: "col" }, words)))),
      element("tbody", {},
        row("False alarms", (one) => `${one.false_alarms} of ${one.good} good${between(one.false_alarm_interval)}`),
        row("Missed", (one) => `${one.missed} of ${one.defective} defective${between(one.missed_interval)}`),
        row("AUROC", (one) => one.auroc === null ? "not known" : `${digits(one.auroc)}${between(one.auroc_interval)}`)));
    const difference = proof.auroc_difference === null ? ""
      : ` AUROC ${proof.auroc_difference < 0 ? "−" : "+"}${digits(Math.abs(proof.auroc_difference))}, from ${digits(proof.auroc_difference_interval[0])} to ${digits(proof.auroc_difference_interval[1])}.`;
    byId("proof-verdict").textContent = `By the rule it is ${proof.why_not_better ? `not better: ${proof.why_not_better}` : "better"}.${difference}`;
    byId("proof-use").textContent = `Use version ${version}`;
    byId("proof-use").hidden = byId("proof-back").hidden = !mayChange;
    this.#drawChanges(proof);
    this.#drawUse(proof);
  }

  /** Which of the two buttons says something now. */
  async #drawUse({ model, version }) {
    const { versions, history } = await ask(`/api/versions?${new URLSearchParams({ model })}`).catch(() => ({ versions: [], history: [] }));
    const isInUse = versions.some((one) => one.number === version && one.is_in_use);
    byId("proof-use").disabled = isInUse;
    byId("proof-back").disabled = history.length < 2;
  }

  #drawChanges({ changes, total_changed: total, confirmed, left_out: leftOut, total_left_out: totalLeftOut }) {
    for (const url of this.#urls) URL.revokeObjectURL(url);
    this.#urls = [];
    byId("proof-changes-words").textContent = total === 0 ? `No verdict on any of ${count(confirmed, "confirmed image")} would change.`
      : `Of ${count(confirmed, "confirmed image")} ${total === 1 ? "this one" : `these ${total}`} would be called otherwise${changes.length < total ? `; the first ${changes.length}` : ""}:`;
    byId("proof-changes").replaceChildren(...changes.map((change) => this.#change(change)));
    const more = totalLeftOut > leftOut.length ? `; and ${totalLeftOut - leftOut.length} more` : "";
    byId("proof-left-out").textContent = leftOut.length ? `Left out: ${leftOut.join("; ")}${more}.` : "";
  }

  #change(change) {
    const isBetter = change.said_after === change.is_defective;
    const thumbnail = element("span", { class: "thumbnail" });
    if (change.image) this.#showThumbnail(thumbnail, change.image);
    const said = (isDefective) => element("span", { class: "known" }, symbol(verdictKind(isDefective)), verdictWord(isDefective));
    return element("li", { class: isBetter ? "better" : "worse" }, thumbnail, element("span", { class: "name" }, change.name),
      element("span", { class: "turn" }, said(change.said_before), element("span", { class: "unseen" }, "becomes"), element("span", { "aria-hidden": "true" }, "→"), said(change.said_after)),
      element("b", {}, isBetter ? "right now" : "wrong now"),
      element("small", {}, change.is_learned_from ? "learned from" : "kept apart"));
  }

  async #showThumbnail(target, image) {
    const blob = await fetched(image).catch(() => null);
    if (!blob) return;
    this.#urls.push(URL.createObjectURL(blob));
    target.replaceChildren(element("img", { src: this.#urls.at(-1), alt: "" }));
  }
}

function wordsOf({ state, model, by, began, ended, step, number, steps, version, reason }) {
  if (state === "never") return "";
  const who = by === "local" ? "" : ` ${by} began it.`;
  if (state === "runs") return `Step ${number} of ${steps}: the new version of ${model} ${step === "reads the model and the images" ? "begins: images are read" : step}. Since ${moment(began)}.${who}`;
  if (state === "failed") return `No version of ${model} was made: ${reason}`;
  return `Version ${version} of ${model} was made, ${moment(ended)}.${who}`;
}

const digits = (value) => value.toFixed(3);
const between = (interval) => (interval ? ` (${digits(interval[0])} to ${digits(interval[1])})` : "");
