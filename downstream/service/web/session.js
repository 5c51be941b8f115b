// What the page knows of the service: the model in use, its threshold, a threshold on trial, and recent results.

import { ask } from "./api.js";
import { confidence, flips, isDefective } from "./decision.js";

export const MAX_RECENT = 500; // also the most that one page of the API has

/**
 * Events: "model" when model, threshold or recent results are others; "trial" when the threshold on trial moved;
 * "recent" when a result was added.
 */
export class Session extends EventTarget {
  status = null;
  model = null; // GET /api/threshold
  models = [];
  trial = null; // a number; equal to model.value when nothing is on trial
  recent = [];

  /** Ask for everything (`isOther`: whatever was known); true if model or threshold were changed, also by somebody else. */
  async refresh(isOther = false) {
    this.status = await ask("/api/status");
    const isSame = this.model?.model === this.status.model && this.model?.value === this.status.threshold;
    if (isSame && !isOther) return false;
    const [model, models] = await Promise.all([ask("/api/threshold"), ask("/api/models")]);
    this.models = models.models.map((one) => one.name);
    await this.#use(model);
    return true;
  }

  async choose(name) {
    const model = await ask("/api/load_model", { method: "POST", body: { name } });
    this.status = await ask("/api/status");
    await this.#use(model);
  }

  /** Keep a threshold for everybody; null goes back to the model's own. */
  async keep(value) {
    await this.#use(await ask("/api/threshold", { method: "PUT", body: { value } }));
  }

  try(value) {
    this.trial = value;
    this.dispatchEvent(new Event("trial"));
  }

  get isOnTrial() {
    return this.model !== null && this.trial !== this.model.value;
  }

  add(answer) {
    if (answer.model !== this.model?.model) return;
    this.recent = [answer, ...this.recent.filter((one) => one.id !== answer.id)].slice(0, MAX_RECENT);
    this.dispatchEvent(new Event("recent"));
  }

  /** Whether the person may: read, inspect, say, configure, export, audit. */
  may(right) {
    return this.status?.rights.includes(right) ?? true;
  }

  /** By the threshold on trial, if it is the model's that judged; else as it was judged. */
  isDefective(answer) {
    return answer.model === this.model?.model ? isDefective(answer, this.trial, this.model) : answer.is_defective;
  }

  confidence(answer) {
    if (answer.model !== this.model?.model || this.trial === answer.threshold) return answer.confidence;
    return confidence(answer.anomaly_score, this.trial, this.model.confidence_curve);
  }

  threshold(answer) {
    return answer.model === this.model?.model ? this.trial : answer.threshold;
  }

  /** Above it a pixel belongs to a region. Where an area rule decides, it is the threshold itself and moves with it. */
  mapLimit(answer) {
    if (answer.map_threshold === null || answer.map_threshold === answer.threshold) return this.threshold(answer);
    return answer.map_threshold;
  }

  flips() {
    return flips(this.recent, this.model, this.trial);
  }

  async #use(model) {
    const query = new URLSearchParams({ model: model.model, limit: MAX_RECENT });
    this.recent = (await ask(`/api/results?${query}`)).results;
    this.model = model;
    this.trial = model.value;
    this.dispatchEvent(new Event("model"));
  }
}
