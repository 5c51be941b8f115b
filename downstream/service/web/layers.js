// What is drawn over the image: heat, contours, boxes, and how strongly; as it was chosen last.

import { byId, remember, remembered } from "./elements.js";

const LAYERS = ["heat", "contours", "boxes"];

export function startLayers(stage) {
  const show = () => {
    const on = Object.fromEntries(LAYERS.map((name) => [name, byId(`show-${name}`).checked]));
    const opacity = Number(byId("opacity").value);
    byId("opacity-words").textContent = `${opacity} %`;
    stage.layers({ ...on, opacity: opacity / 100 });
    remember("layers", { ...on, opacity });
  };
  const before = remembered("layers", {});
  for (const name of LAYERS) {
    byId(`show-${name}`).checked = before[name] ?? true;
    byId(`show-${name}`).addEventListener("change", show);
  }
  byId("opacity").value = before.opacity ?? 65;
  byId("opacity").addEventListener("input", show);
  show();
}
