// What the page knows of the stations, and what may be said of each just now: never more than the line itself still says.

// As a controller has it: with a heartbeat that stands still for three seconds nothing is a pass. States come each second.
const SILENT_MS = 3500;
// A fail or fault is seen for so long, where parts come faster than eyes; nor does a screen flash faster then.
const HELD_MS = 1000;
// A pass is of the part that lies there. After so long it is said to be of the last one.
const FRESH_MS = 60_000;

export const WORDS = { pass: "Pass", fail: "Fail", fault: "Fault" };

export class Stations {
  sinks = [];
  #known = new Map();
  #events = 0; // so many have come
  #cut = "The line has not answered yet.";

  get names() {
    return [...this.#known.keys()];
  }

  has(name) {
    return this.#known.has(name);
  }

  /** Nothing more is heard of the line. `why` is a sentence. */
  cut(why) {
    this.#cut = why;
  }

  get isCut() {
    return this.#cut !== null;
  }

  /** The stream's first event: whatever was known is of before. */
  begin(status) {
    this.#known = new Map();
    this.#cut = null;
    this.#take(status, () => true);
  }

  /** Of a status that was asked for at `mark`; what a station said meanwhile is newer. */
  refresh(status, mark) {
    this.#take(status, (known) => known.mark <= mark);
  }

  get mark() {
    return this.#events;
  }

  state(state) {
    const known = this.#known.get(state.station);
    if (!known) return;
    known.mark = ++this.#events;
    this.#heard(known, state);
  }

  signal(signal) {
    const known = this.#known.get(signal.station);
    if (!known) return;
    known.mark = ++this.#events;
    this.#judged(known, signal, Date.now());
  }

  #take(status, isNewer) {
    this.sinks = status.sinks;
    for (const all of status.stations) {
      const known = this.#known.get(all.station) ?? { mark: 0, signal: null, at: 0, bad: null, beatAt: Date.now(), parts: new Map() };
      this.#known.set(all.station, known);
      known.figures = all;
      if (!isNewer(known)) continue;
      this.#heard(known, all);
      // Between two clocks of the line's, so that the page's may be wrong.
      if (all.newest && all.newest.id !== known.signal?.id) this.#judged(known, all.newest, Date.now() - Math.max(0, Date.parse(all.time) - Date.parse(all.newest.time)));
    }
  }

  #heard(known, state) {
    if (state.heartbeat !== known.state?.heartbeat) known.beatAt = Date.now();
    known.state = state;
  }

  #judged(known, signal, at) {
    Object.assign(known, { signal, at });
    if (signal.verdict !== "pass") known.bad = { signal, at };
    known.parts.set(signal.id, signal); // of pictures that come after the next signal
    if (known.parts.size > 100) known.parts.delete(known.parts.keys().next().value);
  }

  /** A signal that came of late, by its id. */
  part(name, id) {
    return this.#known.get(name)?.parts.get(id);
  }

  of(name) {
    const { state, figures, signal } = this.#known.get(name);
    return { state, figures, signal };
  }

  /**
   * What may be said of a station: `kind` is pass, fail, fault, waiting, stopped or lost, `word` says it, `why` adds
   * to it, and `signal` is the one that it is said of. Pass is said of a line that answers, and of nothing else.
   */
  look(name, now = Date.now()) {
    const { state, signal, at, bad, beatAt } = this.#known.get(name);
    if (this.isCut) return { kind: "lost", word: "No contact", why: this.#cut };
    if (state.mode === "fault") return { kind: "fault", word: "Fault", why: state.reason };
    // A clock that was set back tells nothing either.
    if (Math.abs(now - beatAt) > SILENT_MS) return { kind: "lost", word: "No contact", why: "Its heartbeat stands still: take every part for a fault." };
    if (state.mode === "stopped") return { kind: "stopped", word: "Stopped", why: state.reason };
    const shown = bad && now - bad.at < HELD_MS ? bad.signal : signal;
    if (!shown) return { kind: "waiting", word: "Waiting", why: "No part yet." };
    if (shown.verdict === "pass" && now - at > FRESH_MS) {
      return { kind: "waiting", word: "Waiting", why: `Part ${shown.part} was a pass, ${ago(now - at)} ago.` };
    }
    return { kind: shown.verdict, word: WORDS[shown.verdict], why: shown.reason, signal: shown };
  }
}

function ago(ms) {
  const minutes = Math.floor(ms / 60_000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}
