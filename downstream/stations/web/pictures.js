// The newest image of each tile, one after the other: to draw one takes the line time that its parts may want.

import { opened } from "./api.js";
import { byId } from "./elements.js";

const EACH_MS = 1000; // at most one of a station in so long
const PAUSE_MS = 200; // and between any two

/** `stations` are what is known; `show(name, url, signal)` draws one, none without a url. For ever, while `isWanted()`. */
export async function showPictures(stations, show, isWanted) {
  const shown = new Map(); // by station: id of the part, with or without overlay, when, url
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    if (stations.isCut || document.hidden || !isWanted()) continue;
    const overlay = byId("overlay").checked;
    const [name] = stations.names.filter((each) => isDue(stations.of(each).signal, shown.get(each), overlay))
      .sort((a, b) => (shown.get(a)?.at ?? 0) - (shown.get(b)?.at ?? 0));
    if (name === undefined) continue;
    const before = shown.get(name)?.url;
    const { signal } = stations.of(name);
    const now = { id: signal.id, overlay, at: Date.now(), url: null };
    shown.set(name, now);
    let of = signal;
    if (signal.verdict !== "fault") {
      try {
        const answer = await opened(`/api/stations/${name}/image?overlay=${overlay}`);
        now.id = answer.headers.get("X-Part");
        of = stations.has(name) ? stations.part(name, now.id) : null;
        now.url = URL.createObjectURL(await answer.blob());
      } catch {
        // The newest part is a fault meanwhile, or the line is gone: its events say so.
      }
    }
    if (stations.has(name)) show(name, now.url, of);
    if (before) URL.revokeObjectURL(before);
  }
}

function isDue(signal, shown, overlay) {
  if (!signal) return false;
  if (!shown) return true;
  return (signal.id !== shown.id || overlay !== shown.overlay) && Date.now() - shown.at >= EACH_MS;
}
