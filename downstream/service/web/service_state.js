// Whether the service answers and with what it judges, in the head of the page.

import { byId, symbol } from "./elements.js";

const POLL_MS = 10_000;

export function showService({ status }, error = null) {
  if (!error && byId("service").dataset.state === "failed") byId("trouble").hidden = true; // it is back
  byId("service").dataset.state = error ? "failed" : "good";
  const words = error ? "not reachable" : `${status.category}, ${status.method}, ${[status.size_px].flat().join(" x ")} px`;
  byId("service").replaceChildren(symbol(error ? "failed" : "good"), words);
}

/** Asks again and again; `trouble` shows why a page that knows no model yet stays empty. */
export async function poll(session, trouble) {
  try {
    await session.refresh();
    showService(session);
  } catch (error) {
    showService(session, error);
    if (session.model === null) trouble(error);
  }
  setTimeout(() => poll(session, trouble), POLL_MS);
}
