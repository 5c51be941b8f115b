// The floor view: each station's verdict as large as the screen bears, for people who stand five meters away.

import { byId, element, symbol } from "./elements.js";
import { say } from "./tiles.js";

const CELL_SHAPE = 1.6; // width by height that a word fits best
const BLINK_MS = 1000;

export class Floor {
  #stations;
  #cells = new Map();
  #lock = null;

  constructor(stations) {
    this.#stations = stations;
    addEventListener("resize", () => this.#arrange());
    document.addEventListener("visibilitychange", () => this.isOn && this.#stayAwake());
  }

  get isOn() {
    return !byId("floor").hidden;
  }

  show(isShown) {
    if (isShown === this.isOn) return;
    byId("floor").hidden = !isShown;
    if (isShown) this.#stayAwake();
    else this.#lock?.release();
    this.#arrange();
  }

  draw() {
    if (!this.isOn) return;
    say(byId("clock"), `${this.#stations.isCut ? "No contact" : "Live"}, ${new Date().toLocaleTimeString()}`); // stands still where the page does
    const names = this.#stations.names;
    if (names.join() !== [...this.#cells.keys()].join()) {
      this.#cells = new Map(names.map((name) => [name, made(name)]));
      byId("cells").replaceChildren(...[...this.#cells.values()].map((cell) => cell.whole));
      this.#arrange();
    }
    for (const [name, cell] of this.#cells) {
      const seen = this.#stations.look(name);
      if (cell.whole.dataset.kind !== seen.kind) {
        cell.whole.dataset.kind = seen.kind;
        cell.icon.replaceChildren(symbol(seen.kind));
      }
      say(cell.word, seen.word);
      say(cell.part, seen.signal ? `part ${seen.signal.part}` : "");
      say(cell.why, seen.why);
      if (seen.signal && seen.signal.id !== cell.id) blink(cell);
      cell.id = seen.signal?.id;
    }
  }

  /** As many columns as make the cells' shape that of a word. */
  #arrange() {
    const count = Math.max(1, this.#cells.size);
    const misfit = (columns) => Math.abs(Math.log(innerWidth / columns / (innerHeight / Math.ceil(count / columns)) / CELL_SHAPE));
    const columns = [...Array(count).keys()].map((index) => index + 1).sort((a, b) => misfit(a) - misfit(b))[0];
    byId("cells").style.setProperty("--columns", columns);
  }

  /** Where the browser allows it: a phone on a stand is to stay lit. */
  async #stayAwake() {
    try {
      this.#lock = await navigator.wakeLock?.request("screen");
    } catch {
      // Then the screen does as the system says.
    }
  }
}

function made(name) {
  const [icon, word, part, why] = ["span", "b", "span", "span"].map((tag) => element(tag));
  [icon, word, part, why].forEach((each, index) => (each.className = ["icon-of", "word", "part", "why"][index]));
  const link = element("a", { href: `#station/${name}` }, element("span", { class: "station" }, name), element("span", { class: "said" }, icon, word), part, why);
  return { whole: element("li", { class: "cell" }, link), icon, word, part, why, id: null, blinkedAt: 0 };
}

/** Another part, though the word is the same: never more than once a second, and not for who wants no motion. */
function blink(cell) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches || Date.now() - cell.blinkedAt < BLINK_MS) return;
  cell.blinkedAt = Date.now();
  cell.icon.animate([{ transform: "scale(.8)" }, { transform: "scale(1)" }], 250);
}
