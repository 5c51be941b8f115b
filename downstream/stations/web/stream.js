// The line's events, read by fetch since an EventSource cannot send the token; connected anew for as long as it takes.

import { opened, Trouble } from "./api.js";
import { byId } from "./elements.js";

// States come each second: without a word for so long the line is gone, whatever the network says.
const SILENT_MS = 4000;
const CONNECT_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;

/** Call `heard(kind, what)` with each event, and `cut(why)` where there are none any more; for ever. */
export async function follow(heard, cut) {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      await read((kind, what) => {
        pause = FIRST_PAUSE_MS;
        heard(kind, what);
      });
      cut("The line has ended its answer.");
    } catch (error) {
      const isAnswer = error instanceof Trouble && error.status > 0;
      cut(error.name === "AbortError" ? "The line says nothing any more." : isAnswer ? error.message : "The line cannot be reached.");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function read(heard) {
  const stop = new AbortController();
  let silence;
  const listen = (ms = SILENT_MS) => {
    clearTimeout(silence);
    silence = setTimeout(() => byId("token-dialog")?.open || stop.abort(), ms); // a person may be typing
  };
  try {
    listen(CONNECT_MS);
    const answer = await opened("/api/events", { signal: stop.signal });
    listen();
    let text = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      listen();
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [, kind, data] = event.match(/^event: (\w+)\ndata: (.*)$/) ?? [];
        if (kind) heard(kind, JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(silence);
    stop.abort();
  }
}
