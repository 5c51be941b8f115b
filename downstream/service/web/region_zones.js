// The fields of each zone of a region. Numbers stay as they are typed: the service checks them, and says what is wrong.

import { byId, element } from "./elements.js";

const LIMITS = { share: "its even part of the false-alarm rate", rate: "a false-alarm rate of its own", threshold: "a threshold" };
const VALUES = { rate: "Rate, such as 0.02", threshold: "Threshold, of the map" };
const FIELDS = ["name", "by", "value", "area"];
let before = ""; // which fields there are: they are made anew for others alone, since one of them has the focus

/** `changed()` is called after a field was. */
export function drawZones(drawing, changed) {
  const box = byId("region-zones");
  byId("region-zones-panel").hidden = drawing.zones.length === 0;
  const fields = drawing.zones.map(({ number, by }) => `${number} ${by}`).join();
  if (fields !== before) {
    before = fields;
    const focused = document.activeElement?.dataset.key;
    box.replaceChildren(...drawing.zones.map((zone) => fieldsOf(zone)));
    if (focused) box.querySelector(`[data-key="${focused}"]`)?.focus();
  }
  for (const zone of drawing.zones) {
    for (const name of FIELDS) {
      const input = box.querySelector(`[data-key="${name} ${zone.number}"]`);
      if (!input) continue;
      if (input !== document.activeElement || name === "by") input.value = zone[name];
      input.onchange = () => {
        drawing.setZone(zone, name, input.value.trim());
        changed();
      };
    }
  }
}

function fieldsOf(zone) {
  const field = (name, words, tag, attributes, ...children) => element("label", { class: "field" }, element("span", {}, words),
    element(tag, { "data-key": `${name} ${zone.number}`, ...attributes }, ...children));
  const typed = { type: "text", autocomplete: "off" };
  return element("fieldset", { class: "zone" }, element("legend", { class: "unseen" }, `Zone ${zone.name}`),
    field("name", "Name", "input", { ...typed, maxlength: 60 }),
    field("by", "Decides by", "select", {}, ...Object.entries(LIMITS).map(([value, words]) => element("option", { value }, words))),
    zone.by !== "share" && field("value", VALUES[zone.by], "input", { ...typed, inputmode: "decimal" }),
    field("area", "Smallest region, px", "input", { ...typed, inputmode: "numeric", placeholder: "any" }));
}
