// What the keyboard does. Every key has a button or field that does the same.

import { byId, element, remember, remembered } from "./elements.js";

/**
 * `actions` are [keys, words, act, view]: `keys` are values of KeyboardEvent.key, `act(event)` does it, `view` is where
 * it counts (none: everywhere). Keys inside of fields are left to them.
 */
export function startKeys(actions, viewNow) {
  const single = element("input", { type: "checkbox", id: "single-keys" });
  const list = element("dl", { id: "keys-list", class: "keys" });
  const close = element("button", { id: "keys-close", type: "button", class: "main", autofocus: true, onclick: () => dialog.close() }, "Close");
  const dialog = element("dialog", { id: "keys-dialog", "aria-labelledby": "keys-title" }, element("h2", { id: "keys-title" }, "Keys"), list,
    element("label", { class: "check" }, single, " Single letters act"), element("p", { class: "choices" }, close));
  document.body.append(dialog);
  single.checked = remembered("single-keys", true);
  single.addEventListener("change", () => remember("single-keys", single.checked));
  const open = () => !dialog.open && dialog.showModal();
  byId("show-keys").addEventListener("click", open);
  const all = [...actions, [["?"], "show the keys", open]];
  const rows = all.map(([keys, words]) => [
    element("dt", {}, ...keys.flatMap((key, i) => (i ? [" ", named(key)] : [named(key)]))),
    element("dd", {}, words),
  ]);
  list.replaceChildren(...rows.flat());
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (isOwnKey(event)) return;
    const isLetter = event.key.length === 1 && event.key !== "?";
    if (isLetter && !single.checked) return;
    const found = all.find(([keys, , , view]) => keys.includes(event.key) && (!view || view === viewNow()));
    if (!found) return;
    event.preventDefault();
    found[2](event);
  });
}

const NAMES = { ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" };
const named = (key) => element("kbd", {}, NAMES[key] ?? key);

/** Whether the focused element has a use for the key itself. */
function isOwnKey({ target, key }) {
  if (target.matches("input[type=checkbox]")) return key === " ";
  if (target.matches("input[type=range]")) return key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(key);
  if (key === "Escape") return false;
  return target.matches("input, select, textarea");
}
