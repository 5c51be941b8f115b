// Whether camera and scores are as they were, and how often people found the model wrong.

import { ask } from "./api.js";
import { byId, element, symbol } from "./elements.js";
import { count, figure, percent } from "./format.js";

export class Watch {
  #trouble;

  /** `trouble(error)` tells the person. */
  constructor(trouble) {
    this.#trouble = trouble;
    byId("watch-panel").addEventListener("toggle", () => byId("watch-panel").open && this.refresh());
    byId("begin-anew").addEventListener("click", () => this.#beginAnew());
  }

  async refresh() {
    try {
      this.#draw(await ask("/api/watch"));
    } catch (error) {
      this.#trouble(error);
    }
  }

  async #beginAnew() {
    try {
      this.#draw(await ask("/api/watch/begin_anew", { method: "POST" }));
    } catch (error) {
      this.#trouble(error);
    }
  }

  #draw({ camera, drift, image_drift: images, false_alarms: alarms, misses }) {
    const found = Object.entries(camera.problems);
    const isWell = found.length === 0 && !drift.has_drifted && !images?.has_drifted;
    const isLearning = camera.references < camera.references_needed || drift.cusum_limit === null;
    const [icon, words] = !isWell ? ["defective", "look at it"] : isLearning ? ["waiting", "learning"] : ["good", "as usual"];
    byId("watch-state").replaceChildren(symbol(icon), words);
    const rows = [["Camera", ...cameraWords(camera, found)], ["Scores", ...driftWords(drift)], ...(images ? [["Pictures as a whole", ...driftWords(images)]] : []),
      ["False alarms", ...rateWords(alarms, "good")], ["Misses", ...rateWords(misses, "defective")]];
    byId("watch").replaceChildren(...rows.flatMap(([name, words, small]) =>
      [element("dt", {}, name), element("dd", {}, words, element("small", {}, small))]));
    byId("begin-anew").disabled = camera.references === 0;
  }
}

function cameraWords(camera, found) {
  if (camera.references < camera.references_needed) {
    return [`learning: ${camera.references} of ${camera.references_needed} accepted images`, "then it is said what is too dark, too bright, blurred, moved or another product"];
  }
  const words = found.length ? found.map(([problem, times]) => `${problem}: ${times}`).join(", ") : "nothing unusual";
  return [words, `of the latest ${count(camera.recent, "image")}; each check errs on ${percent(camera.false_alarm_rate, 1)} of good ones`];
}

function driftWords(drift) {
  if (drift.cusum_limit === null) return [`learning: ${drift.references} of ${drift.references_needed} accepted images`, "then scores of accepted images are compared with those"];
  const sums = `creep ${figure(Math.max(drift.cusum_high, drift.cusum_low))} of ${figure(drift.cusum_limit)}`;
  const chance = drift.ks_p_value === null ? `the first window of ${drift.ks_window} is not full yet` : `by chance alone: ${percent(drift.ks_p_value, 1)} (alarm below ${percent(drift.ks_false_alarm_rate, 1)})`;
  return [drift.has_drifted ? "drifted" : "as before", `${chance}; ${sums}`];
}

function rateWords(rate, called) {
  if (rate.total === 0) return ["not known", `nobody has called an image ${called}`];
  return [percent(rate.count, rate.total), `${rate.count} of ${rate.total} called ${called} by people; between ${percent(rate.low, 1)} and ${percent(rate.high, 1)}`];
}
