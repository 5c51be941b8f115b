// The page of a line: it follows the line's events, and shows them as tiles, as a history, or to the floor.

import { ask, onTokenWanted } from "./api.js";
import { nextColors, startColors } from "./colors.js";
import { byId, element, remember, remembered, symbol } from "./elements.js";
import { Floor } from "./floor.js";
import { History } from "./history.js";
import { startKeys } from "./keyboard.js";
import { showPictures } from "./pictures.js";
import { Stations } from "./stations.js";
import { follow } from "./stream.js";
import { say, Tiles } from "./tiles.js";
import { tokenAsker } from "./token.js";

const DRAW_MS = 250; // what grows old shows it within so long
const FIGURES_MS = 2000; // rate, latency and receivers are in no event

const stations = new Stations();
const [tiles, floor, history] = [new Tiles(stations), new Floor(stations), new History(stations)];

// Views, by the address: back and forward work, and a screen on the floor opens with #floor.

const viewNow = () => (location.hash === "#floor" ? "floor" : location.hash.startsWith("#station/") ? "station" : "tiles");
const onView = (hash) => () => location.hash !== hash && (location.hash = hash);
let last = null; // the station that was looked at

function showView() {
  const view = viewNow();
  byId("tiles").hidden = view !== "tiles";
  document.querySelector(".bar").hidden = view === "floor";
  floor.show(view === "floor");
  const name = view === "station" ? location.hash.slice("#station/".length) : null;
  history.show(name);
  for (const link of document.querySelectorAll(".bar nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  draw();
  if (view === "floor") byId("floor").focus();
  else if (view === "tiles" && last !== null) tiles.focus(last);
  last = view === "tiles" ? null : (name ?? "");
}

let spokenKinds = new Map();

function draw() {
  byId("cut").hidden = !stations.isCut || cutAt === null;
  if (viewNow() === "tiles") tiles.draw();
  history.draw();
  floor.draw();
  const kinds = new Map(stations.names.map((name) => [name, stations.look(name)]));
  // What a person has to go and see is said; each pass is not.
  const turned = [...kinds].filter(([name, { kind }]) => kind !== spokenKinds.get(name)?.kind && ["fault", "lost"].includes(kind));
  if (turned.length) say(byId("spoken"), turned.map(([name, { word, why }]) => `${name}: ${word}. ${why}`).join(" "));
  spokenKinds = kinds;
  const wrong = [...kinds.values()].filter(({ kind }) => ["fail", "fault", "lost"].includes(kind)).length;
  const title = `${wrong ? `(${wrong}) ` : ""}heldout line`;
  if (document.title !== title) document.title = title;
  drawSinks();
}

let drawnSinks = "";

/** Receivers that do not get on: signals wait for them on disk. */
function drawSinks() {
  const words = stations.sinks.filter((sink) => sink.problem).map((sink) => `${sink.name}: ${sink.waiting} wait (${sink.problem})`);
  if (words.join("\n") === drawnSinks) return;
  drawnSinks = words.join("\n");
  byId("sinks").hidden = words.length === 0;
  byId("sinks").replaceChildren(...words.map((text) => element("li", {}, symbol("lost"), text)));
}

// What comes from the line.

let cutAt = null;
let drawing = 0;
const drawSoon = () => (drawing ||= requestAnimationFrame(() => ((drawing = 0), draw())));

function heard(kind, what) {
  if (kind === "status") {
    stations.begin(what);
    cutAt = null;
    contact("live", "good");
  } else if (kind === "state") stations.state(what);
  else if (kind === "signal") stations.signal(what);
  drawSoon();
}

function cut(why) {
  cutAt ??= new Date();
  stations.cut(why);
  contact("no contact", "failed");
  say(byId("cut"), `${why} Since ${cutAt.toLocaleTimeString()} nothing is known: take every part for a fault. Trying again.`);
  draw();
}

function contact(words, state) {
  byId("contact").dataset.state = state;
  byId("contact").textContent = words;
}

async function keepFigures() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, FIGURES_MS));
    if (stations.isCut || document.hidden) continue;
    const { mark } = stations;
    try {
      const status = await ask("/api/status");
      if (!stations.isCut) stations.refresh(status, mark);
    } catch {
      // The stream says it, if the line is gone.
    }
  }
}

byId("overlay").checked = remembered("line-overlay", true);
byId("overlay").addEventListener("change", (event) => remember("line-overlay", event.target.checked));
document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), byId("main").focus()));
addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", draw);
startKeys([
  [["f"], "the floor view, and back", () => onView(viewNow() === "floor" ? "#tiles" : "#floor")()],
  [["o"], "overlay", () => byId("overlay").click(), "tiles"],
  [["d"], "colors: as the system, light, dark", nextColors],
  [["Escape"], "back to all stations", onView("#tiles")],
], viewNow);
onTokenWanted(tokenAsker("This line"));
startColors();
showView();
setInterval(draw, DRAW_MS);
follow(heard, cut);
keepFigures();
showPictures(stations, (name, url, signal) => tiles.picture(name, url, signal), () => viewNow() === "tiles");
