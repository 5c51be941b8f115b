// The service, as the page asks it: the token, busy answers, and every trouble as one sentence that says what to do.

import { element } from "./elements.js";

/** A request that came to nothing. `message` is for the person; `status` is 0 where no answer came. */
export class Trouble extends Error {
  constructor(message, status = 0, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

const LONGEST_WAIT_S = 60;
let askForToken = async () => null;
let tokenWanted = null;

/** `ask(wasWrong)` is called when the service wants a token, and promises it. */
export function onTokenWanted(ask) {
  askForToken = ask;
}

/** GET or another method; promises JSON. `body` is sent as JSON, or as a form if it is one. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  return (await answered(path, { method, body, signal })).json();
}

/** An image or a CSV file: <img src> and links could not send the token. */
export async function fetched(path, options) {
  return (await opened(path, options)).blob();
}

/** The answer itself, whose body may come bit by bit, as that of events does. */
export function opened(path, { signal } = {}) {
  return answered(path, { signal });
}

/** The same as a file of the person's. */
export async function download(path, name) {
  save(await fetched(path), name);
}

/** What this page has made, as a file of the person's. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function answered(path, options) {
  for (;;) {
    const token = currentToken();
    let response;
    try {
      response = await fetch(path, requestOf(options, token));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble("The service cannot be reached: see whether it runs, then try again.");
    }
    if (response.status === 401) await newToken(token);
    else if (response.ok) return response;
    else throw troubleOf(response.status, await response.text(), response.headers.get("Retry-After"));
  }
}

function requestOf({ method, body, signal }, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  return { method, headers, signal, body: body === undefined || isForm ? body : JSON.stringify(body) };
}

/**
 * Post a form and say how far it is: fetch cannot tell how much of a body has been sent.
 * `onSent(share)` is called with 0..1. Promises JSON; throws Trouble, or AbortError once `signal` says so.
 */
export async function send(path, form, onSent, signal) {
  for (;;) {
    const token = currentToken();
    const { status, text, retryAfter } = await posted(path, form, token, onSent, signal);
    if (status === 401) await newToken(token);
    else if (status >= 200 && status < 300) return JSON.parse(text);
    else throw troubleOf(status, text, retryAfter);
  }
}

function posted(path, form, token, onSent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stopped = () => reject(new DOMException("stopped", "AbortError"));
    if (signal?.aborted) return stopped();
    const abort = () => request.abort();
    signal?.addEventListener("abort", abort, { once: true });
    request.open("POST", path);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    request.onabort = stopped;
    request.onerror = () => reject(new Trouble("The service cannot be reached: see whether it runs, then retry."));
    request.onload = () =>
      resolve({ status: request.status, text: request.responseText, retryAfter: request.getResponseHeader("Retry-After") });
    request.onloadend = () => signal?.removeEventListener("abort", abort);
    request.send(form);
  });
}

function troubleOf(status, text, retryAfter) {
  let detail = "";
  try {
    detail = JSON.parse(text).detail;
  } catch {
    // Not from the service itself, but from something between it and this page.
  }
  const sentence = typeof detail === "string" && detail ? sentenceOf(detail) : `The service answered ${status}: try again.`;
  const seconds = Number.parseInt(retryAfter, 10);
  return new Trouble(sentence, status, Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), LONGEST_WAIT_S) : null);
}

function sentenceOf(detail) {
  const sentence = detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

function currentToken() {
  try {
    return sessionStorage.getItem("token");
  } catch {
    return held;
  }
}

// Where storage is forbidden the token lives as long as the page.
let held = null;

/** Ask once, however many requests were refused at the same time. */
async function newToken(refused) {
  if (currentToken() !== refused) return;
  tokenWanted ??= askForToken(refused !== null).then((token) => {
    held = token;
    tokenWanted = null;
    try {
      sessionStorage.setItem("token", token);
    } catch {
      // Then it is held above.
    }
  });
  await tokenWanted;
}
