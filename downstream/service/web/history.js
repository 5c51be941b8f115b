// What was answered before: filters, pages, and all of it as CSV.

import { ask, download } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { count, figure, moment, sureness, verdictKind, verdictWord } from "./format.js";

const A_PAGE = 50;
const PATIENCE_MS = 250;
const FILTERS = ["name", "verdict", "model", "since", "until"];
const COLUMNS = ["Verdict", "Image", "Score", "Threshold", "Confidence", "Regions", "Model", "Judged"];

export class History {
  #open;
  #trouble;
  #pages = [null]; // `before` of each page up to the one that is shown
  #next = null;
  #asking = new AbortController();
  #timer = null;

  /** `open(result)` shows one; `trouble(error)` tells the person. */
  constructor(open, trouble) {
    this.#open = open;
    this.#trouble = trouble;
    for (const name of FILTERS) byId(`filter-${name}`).addEventListener("input", () => this.#later());
    byId("filter-clear").addEventListener("click", () => {
      this.clear();
      this.refresh();
    });
    byId("older").addEventListener("click", () => this.#turn(() => this.#pages.push(this.#next)));
    byId("newer").addEventListener("click", () => this.#turn(() => this.#pages.pop()));
    byId("csv").addEventListener("click", () => this.#download());
    byId("audit").addEventListener("click", () => download("/api/audit/export", "audit.jsonl").catch(trouble));
  }

  /** Without any filter, from the next time on. */
  clear() {
    for (const name of FILTERS) byId(`filter-${name}`).value = "";
  }

  /** The models that can be filtered by. */
  models(names) {
    const select = byId("filter-model");
    const before = select.value;
    const options = names.map((name) => element("option", { value: name }, name));
    select.replaceChildren(element("option", { value: "" }, "any"), ...options);
    if (names.includes(before)) select.value = before;
  }

  /** From the first page. */
  refresh() {
    this.#pages = [null];
    return this.#load();
  }

  /** Move the focus along the images; false if there is none to move from or to. */
  step(by) {
    const buttons = [...byId("history-rows").querySelectorAll("button.open")];
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[at < 0 ? 0 : at + by];
    next?.focus();
    return Boolean(next);
  }

  turn(by) {
    byId(by > 0 ? "older" : "newer").click();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), PATIENCE_MS);
  }

  async #turn(change) {
    change();
    await this.#load();
    byId("history-rows").scrollIntoView({ block: "start" });
  }

  #query() {
    const value = (name) => byId(`filter-${name}`).value;
    const query = new URLSearchParams();
    if (value("name").trim()) query.set("name", value("name").trim());
    if (value("verdict")) query.set("is_defective", value("verdict"));
    if (value("model")) query.set("model", value("model"));
    // The fields are in the reader's zone and to the minute; the last minute counts.
    if (value("since")) query.set("since", new Date(value("since")).toISOString());
    if (value("until")) query.set("until", new Date(new Date(value("until")).getTime() + 60_000).toISOString());
    return query;
  }

  async #load() {
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const query = this.#query();
    const isFiltered = query.size > 0;
    query.set("limit", String(A_PAGE));
    const before = this.#pages.at(-1);
    if (before !== null) query.set("before", String(before));
    try {
      this.#draw(await ask(`/api/results?${query}`, { signal }), isFiltered);
    } catch (error) {
      if (error.name !== "AbortError") this.#trouble(error);
    }
  }

  #draw({ results, total, next_before: next }, isFiltered) {
    this.#next = next;
    const first = (this.#pages.length - 1) * A_PAGE;
    const span = results.length < total ? ` (${first + 1} to ${first + results.length})` : "";
    byId("history-count").textContent = `${count(total, "result")}${isFiltered ? " with these filters" : ""}${results.length ? span : ""}`;
    byId("older").disabled = next === null;
    byId("newer").disabled = this.#pages.length === 1;
    byId("csv").disabled = total === 0;
    if (results.length === 0) {
      const words = isFiltered ? "Nothing passes these filters: clear one of them." : "Nothing was judged yet: drop an image under Inspect.";
      return byId("history-rows").replaceChildren(element("p", { class: "empty" }, words));
    }
    const head = element("tr", {}, ...COLUMNS.map((name) => element("th", { scope: "col" }, name)));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...results.map((one) => this.#row(one))));
    return byId("history-rows").replaceChildren(table);
  }

  #row(result) {
    const kind = verdictKind(result.is_defective);
    const open = element("button", { type: "button", class: "open", onclick: () => this.#open(result) }, result.name || "an image");
    const cells = [
      ["verdict-cell", element("span", {}, symbol(kind), verdictWord(result.is_defective))],
      ["name-cell", open],
      ["number", figure(result.anomaly_score)],
      ["number", figure(result.threshold)],
      ["number", sureness(result.confidence).replace(" sure", "")],
      ["number", String(result.regions.length)],
      ["", result.model],
      ["time", element("time", { datetime: result.created }, moment(result.created))],
    ];
    const made = cells.map(([name, content], i) => element("td", { class: name, "data-label": COLUMNS[i] }, content));
    return element("tr", { "data-state": kind, "data-id": result.id }, ...made);
  }

  async #download() {
    const query = this.#query();
    query.set("format", "csv");
    try {
      await download(`/api/results?${query}`, "results.csv");
    } catch (error) {
      this.#trouble(error);
    }
  }
}
