// The colors of the page: as the system has them, light or dark. theme.js sets what was chosen before anything is drawn.

import { byId, remember, remembered, symbol } from "./elements.js";

const THEMES = { auto: ["automatic", "as the system"], light: ["sun", "light"], dark: ["moon", "dark"] };
function show(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const [icon, words] = THEMES[theme];
  byId("theme").replaceChildren(symbol(icon));
  byId("theme").title = byId("theme").ariaLabel = `Colors: ${words}`;
  remember("theme", theme);
}
export function nextColors() {
  const names = Object.keys(THEMES);
  show(names[(names.indexOf(remembered("theme", "auto")) + 1) % names.length]);
}

export function startColors() {
  byId("theme").addEventListener("click", nextColors);
  show(remembered("theme", "auto"));
}
