// What the person says of a verdict: agree, false alarm, missed defect, unsure; and what takes it back.

import { ask, send, Trouble } from "./api.js";
import { byId } from "./elements.js";
import { moment, verdictWord } from "./format.js";

export const VERDICTS = { agree: "agree", false_alarm: "false alarm", missed_defect: "missed defect", unsure: "unsure", taken_back: "taken back" };

export class Feedback {
  #session;
  #marking;
  #tell;
  #item = null;
  #standing = new Map(); // result id -> the record that stands, or null
  #isBusy = false;

  /** `tell` has said(record), trouble(error) and announce(words). */
  constructor(session, marking, tell) {
    this.#session = session;
    this.#marking = marking;
    this.#tell = tell;
    for (const verdict of ["agree", "false_alarm", "unsure"]) byId(`say-${verdict}`).addEventListener("click", () => this.say(verdict));
    byId("say-missed_defect").addEventListener("click", () => this.mark());
    byId("take-back").addEventListener("click", () => this.takeBack());
  }

  /** The item of the queue that is looked at, or null. */
  async show(item) {
    if (item !== this.#item) this.#marking.stop();
    this.#item = item?.state === "done" ? item : null;
    this.#draw();
    const id = this.#item?.answer.id;
    if (id === undefined || this.#standing.has(id)) return;
    try {
      const { feedback } = await ask(`/api/feedback?result=${id}&limit=100`);
      this.#standing.set(id, feedback.find((one) => one.takes_back === null && one.taken_back_by === null) ?? null);
    } catch (error) {
      if (error.status !== 403) this.#tell.trouble(error);
    }
    this.#draw();
  }

  /** Somebody may have said more since. */
  forget() {
    this.#standing.clear();
  }

  async say(verdict, marks = {}) {
    const item = this.#item;
    if (!item || byId(`say-${verdict}`).hidden || byId(`say-${verdict}`).disabled) return;
    await this.#alone(async () => {
      if (!item.answer.is_kept) await keep(item);
      const record = await ask("/api/feedback", { method: "POST", body: { result: item.answer.id, verdict, marks } });
      this.#standing.set(item.answer.id, record);
      this.#tell.announce(`Said: ${VERDICTS[verdict]}.`);
      this.#draw();
      this.#tell.said(record);
    });
  }

  /** Say that a defect was missed, after marking where. */
  async mark() {
    const item = this.#item;
    if (!item || byId("say-missed_defect").hidden || byId("say-missed_defect").disabled) return;
    await item.mapped; // of an earlier image the map, which suggests regions, is on its way
    if (this.#marking.isOn || item !== this.#item) return;
    this.#marking.start(item, (marks) => this.say("missed_defect", marks));
  }

  async takeBack() {
    const item = this.#item;
    const standing = item && this.#standing.get(item.answer.id);
    if (!standing) return;
    await this.#alone(async () => {
      await takeBack(standing.id);
      this.#standing.delete(item.answer.id);
      this.#tell.announce("Taken back.");
      await this.show(item);
    });
  }

  async #alone(act) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      await act();
    } catch (error) {
      this.#tell.trouble(error);
    }
    this.#isBusy = false;
  }

  #draw() {
    const item = this.#item;
    byId("feedback").hidden = !item;
    if (!item) return;
    const { answer } = item;
    const standing = this.#standing.get(answer.id) ?? null;
    const isPossible = this.#session.may("say") && (answer.is_kept || Boolean(item.file));
    byId("say-false_alarm").hidden = !answer.is_defective;
    byId("say-missed_defect").hidden = answer.is_defective;
    byId("take-back").hidden = !standing;
    for (const verdict of ["agree", "false_alarm", "missed_defect", "unsure"]) {
      const button = byId(`say-${verdict}`);
      button.disabled = !isPossible;
      button.setAttribute("aria-pressed", String(standing?.verdict === verdict));
    }
    const words = standing ? `${standing.by === "local" ? "Said" : `${standing.by} said`}: ${VERDICTS[standing.verdict]}, ${moment(standing.created)}`
      : isPossible ? `Answered ${verdictWord(answer.is_defective).toLowerCase()}. Is that right?${answer.is_kept ? "" : " Saying so keeps the image."}`
        : this.#session.may("say") ? "This image was not kept: nothing can be learned from it."
          : `${this.#session.status.user} may not say whether that is right: ask an operator.`;
    byId("feedback-words").textContent = words;
  }
}

export const takeBack = (id) => ask(`/api/feedback/${id}/take_back`, { method: "POST" });

async function keep(item) {
  const blob = await item.image();
  if (!blob) throw new Trouble("This image was not kept, and is not here any more: judge it again.");
  const form = new FormData();
  form.append("image", blob, item.name || "image");
  await send("/api/keep", form, () => {});
  item.answer.is_kept = true;
}
