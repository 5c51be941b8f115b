// The page: its parts, and how they hear of each other.

import { ask, fetched, onTokenWanted } from "./api.js";
import { nextColors, startColors } from "./colors.js";
import { byId, element, remember, remembered } from "./elements.js";
import { Feedback } from "./feedback.js";
import { mapOf } from "./heatmap.js";
import { History } from "./history.js";
import { startIntake } from "./intake.js";
import { startKeys } from "./keyboard.js";
import { startLayers } from "./layers.js";
import { Learning } from "./learning.js";
import { Marking } from "./marking.js";
import { Products } from "./products.js";
import { Queue, summary } from "./queue.js";
import { Region } from "./region.js";
import { Review } from "./review.js";
import { showMetadata, showHeatKey, showRegions, showVerdict, spokenVerdict } from "./verdict.js";
import { batchWords, ResultList } from "./result_list.js";
import { poll, showService } from "./service_state.js";
import { Session } from "./session.js";
import { Similar } from "./similar.js";
import { Stage } from "./stage.js";
import { ThresholdPanel } from "./threshold_panel.js";
import { tokenAsker } from "./token.js";
import { Versions } from "./versions.js";
import { Watch } from "./watch.js";

const session = new Session();
const queue = new Queue();
const stage = new Stage();
const similar = new Similar();
const list = new ResultList(queue, session, select);
const panel = new ThresholdPanel(session, trouble);
const history = new History(openEarlier, trouble);
const review = new Review(openEarlier, trouble);
const products = new Products(historyOf, reviewOf, trouble);
const watch = new Watch(trouble);
const versions = new Versions(session, { trouble, announce, changed: () => session.refresh(true), prove });
const learning = new Learning(session, { trouble, announce, use: (path, body) => versions.change(path, body) });
const region = new Region(session, { trouble, announce });
const feedback = new Feedback(session, new Marking(stage, announce), { said: () => review.isOn && review.next(), trouble, announce });
let selected = null; // an item of the queue, or one like it made of a result of the history
let shownUrl = null;

const VIEWS = ["inspect", "history", "review", "products", "region"];
const viewNow = () => VIEWS.find((name) => location.hash === `#${name}`) ?? "inspect";

function announce(words) {
  byId("spoken").textContent = words;
}

function trouble(error) {
  byId("trouble").firstElementChild.textContent = error.message;
  byId("trouble").hidden = false;
}

// ---- one image

function select(item) {
  if (item !== selected) review.leave();
  selected = item;
  list.select(item);
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = item?.file && !item.url ? URL.createObjectURL(item.file) : null;
  read();
  const answer = item?.answer ?? null;
  stage.show(item && {
    url: shownUrl ?? item.url ?? null, name: item.name, width: answer?.width ?? null, height: answer?.height ?? null,
    map: item.map, limit: answer && session.mapLimit(answer), regions: answer?.regions ?? [],
    isDefective: answer !== null && session.isDefective(answer),
  });
  showRegions(answer, (position) => stage.zoomTo(position));
  showMetadata(answer);
  similar.show(item?.state === "done" ? item : null);
  feedback.show(item);
}

/** What this browser cannot show, such as TIFF, the service can, if it was kept. */
byId("image").addEventListener("error", async () => {
  const item = selected;
  if (!item?.file || !item.answer?.is_kept || item.url) return;
  const blob = await fetched(`/api/images/kept/${item.answer.digest}`).catch(() => null);
  if (!blob) return;
  item.url = URL.createObjectURL(blob);
  if (item === selected) select(item);
});

/** What depends on the threshold. */
function read() {
  showVerdict(selected, session, () => queue.retry([selected]));
  panel.show(selected?.answer ?? null);
  if (selected?.answer) stage.decide(session.isDefective(selected.answer), session.mapLimit(selected.answer));
}

function step(by) {
  if (viewNow() !== "inspect") return void { history, review, products }[viewNow()]?.step(by);
  const { listed } = list;
  if (listed.length === 0) return;
  const at = listed.indexOf(selected);
  select(listed[Math.min(listed.length - 1, Math.max(0, at < 0 ? 0 : at + by))]);
  if (byId("items").contains(document.activeElement) || document.activeElement === document.body) list.focus();
}

/** A result of the history, with its image if that was kept. */
async function openEarlier(result) {
  const here = queue.items.find((item) => item.answer?.id === result.id);
  location.hash = "#inspect";
  if (here) return select(here);
  const blob = result.is_kept ? await fetched(`/api/images/kept/${result.digest}`).catch(() => null) : null;
  const url = blob && URL.createObjectURL(blob);
  const item = { state: "done", name: result.name, answer: { ...result, map_threshold: null }, map: null, url, image: async () => blob };
  item.mapped = blob && mapAgain(item);
  return select(item);
}

/** The map of an earlier image, if the version that judged it is still in use. */
async function mapAgain(item) {
  const found = await ask(`/api/results/${item.answer.id}/map`).catch(() => null); // without it, there are the boxes
  if (!found?.anomaly_map) return;
  item.map = mapOf(found.anomaly_map);
  item.answer.map_threshold = found.map_threshold;
  if (item === selected) select(item);
}

/** What one model judged. */
function historyOf(model) {
  history.clear();
  byId("filter-model").value = model;
  location.hash = "#history";
}

/** What waits of one model, and what it learns; null for the one in use. */
function reviewOf(model) {
  review.of(model);
  learning.of(model);
  const name = model ?? session.model?.model;
  byId("learn-command").textContent = `heldout detect learn --model models/${name} --feedback ${location.origin}`;
  if (model !== null) location.hash = "#review";
}
document.querySelector('nav a[href="#review"]').addEventListener("click", () => reviewOf(null));

/** How one of the versions was judged. */
async function prove(version) {
  reviewOf(null);
  if (!await learning.show(version)) return;
  location.hash = "#review";
  byId("proof").scrollIntoView();
}

// ---- many images

function take(files) {
  if (files.length === 0) return;
  if (viewNow() === "region") return void region.use(files[0]);
  location.hash = "#inspect";
  const made = queue.add(files);
  for (const item of made) item.image = async () => item.file;
  byId("inspect").dataset.empty = "no";
  select(made[0]);
}

queue.addEventListener("change", ({ detail: { what, item } }) => {
  if (what === "item") list.update(item);
  else list.arrange();
  if (item && item === selected && item.state !== "sending") select(item);
  else if (item && item === selected) read();
  if (what === "items") {
    if (selected?.file && !queue.items.includes(selected)) select(null);
    else if (selected?.file && selected.state !== "done") select(selected);
    byId("inspect").dataset.empty = queue.items.length ? "no" : "yes";
  }
  if (what === "idle" && queue.items.length > 1) {
    announce(`${batchWords(summary(queue.items, (answer) => session.isDefective(answer)))}.`);
  }
});
queue.addEventListener("answer", ({ detail: item }) => {
  session.add(item.answer);
  if (queue.items.length === 1) announce(spokenVerdict(item, session));
});
setInterval(() => queue.pauseS > 0 && list.arrange(), 500);

// ---- model and threshold

let modelBefore = null;
session.addEventListener("model", () => {
  const { model, status, models } = session;
  byId("model").replaceChildren(...models.map((name) => element("option", { value: name }, name)));
  byId("model").value = model.model;
  byId("model").disabled = !session.may("configure");
  byId("feedback-export").hidden = !session.may("export");
  byId("audit").hidden = !session.may("audit");
  byId("begin-anew").hidden = !session.may("configure");
  if (model.model !== modelBefore) reviewOf(null);
  modelBefore = model.model;
  watch.refresh();
  if (viewNow() === "region") region.refresh();
  if (viewNow() === "review") learning.refresh();
  if (byId("versions-panel").open) versions.refresh();
  queue.limits = status.limits;
  similar.isPossible = status.has_search;
  history.models(models);
  showHeatKey(model.map_threshold);
  byId("stage-earlier").replaceChildren(...(session.recent.length
    ? ["Judged before: ", element("a", { href: "#history" }, "see the history")] : []));
  list.arrange();
  if (selected) select(selected);
  else read();
});
session.addEventListener("trial", () => {
  list.arrange();
  read();
});
byId("model").addEventListener("change", async (event) => {
  event.target.disabled = true;
  try {
    await session.choose(event.target.value);
    announce(`Model ${session.model.model} judges from now on.`);
  } catch (error) {
    trouble(error);
    event.target.value = session.model.model;
  }
  event.target.disabled = !session.may("configure");
  showService(session);
});

// ---- views

function showView() {
  const view = viewNow();
  for (const name of VIEWS) {
    byId(name).hidden = name !== view;
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "history") history.refresh();
  if (view === "review") {
    review.refresh();
    learning.refresh();
  }
  if (view === "products") products.refresh();
  if (view === "region") region.refresh();
  if (view !== "inspect") feedback.forget();
}
window.addEventListener("hashchange", showView);
byId("filters").open = window.matchMedia("(min-width: 901px)").matches;

byId("keep-images").checked = queue.keepImages = remembered("keep-images", false);
byId("keep-images").addEventListener("change", (event) => {
  queue.keepImages = event.target.checked;
  remember("keep-images", event.target.checked);
});
byId("trouble").querySelector("button").addEventListener("click", () => (byId("trouble").hidden = true));

const flip = (name) => () => byId(`show-${name}`).click();
const onView = (name) => () => (location.hash = `#${name}`);
startKeys([
  // Chromium counts the first key as the person's own act only once its event is over.
  [["o"], "choose images", () => setTimeout(() => byId("choose").click())],
  [["ArrowDown", "ArrowRight", "j"], "the next image (arrows on a zoomed image move it)", () => step(1)],
  [["ArrowUp", "ArrowLeft", "k"], "the one before", () => step(-1)],
  [["+", "="], "zoom in", () => stage.zoom(1.25), "inspect"],
  [["-"], "zoom out", () => stage.zoom(0.8), "inspect"],
  [["0"], "fit the image", () => stage.fit(), "inspect"],
  [["h"], "heat", flip("heat"), "inspect"],
  [["c"], "contours", flip("contours"), "inspect"],
  [["b"], "boxes", flip("boxes"), "inspect"],
  [["t"], "to the threshold", () => byId("threshold").focus(), "inspect"],
  [["r"], "retry what failed", () => byId("retry-all").click(), "inspect"],
  [["s"], "similar images", () => (byId("similar-panel").open = !byId("similar-panel").open), "inspect"],
  [["a"], "agree with the verdict", () => feedback.say("agree"), "inspect"],
  [["f"], "false alarm", () => feedback.say("false_alarm"), "inspect"],
  [["m"], "missed defect: mark where", () => feedback.mark(), "inspect"],
  [["u"], "unsure", () => feedback.say("unsure"), "inspect"],
  [["z"], "take back what was said", () => feedback.takeBack(), "inspect"],
  [["v"], "the next to review", () => review.isOn && review.next(), "inspect"],
  [["n", "p"], "the older or newer page", (event) => history.turn(event.key === "n" ? 1 : -1), "history"],
  [["/"], "search the history by name", () => (onView("history")(), byId("filter-name").focus())],
  [["1"], "inspect", onView("inspect")],
  [["2"], "history", onView("history")],
  [["n"], "a new polygon", () => region.begin(), "region"],
  [["z"], "undo", () => region.undo(), "region"],
  [["+", "="], "zoom in", () => region.zoom(1), "region"],
  [["-"], "zoom out", () => region.zoom(-1), "region"],
  [["0"], "fit the image", () => region.zoom(0), "region"],
  [["3"], "review", () => (reviewOf(null), onView("review")())],
  [["4"], "products", onView("products")],
  [["5"], "where to look", onView("region")],
  [["d"], "colors: as the system, light, dark", nextColors],
  [["Escape"], "back to the image", () => (onView("inspect")(), byId("stage").focus())],
], viewNow);

startIntake(take);
onTokenWanted(tokenAsker("This service"));
startColors();
startLayers(stage);
showView();
select(null);
poll(session, trouble);
