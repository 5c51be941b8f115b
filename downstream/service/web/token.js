// The token, asked for when the service wants one.

import { byId } from "./elements.js";

/** Promise the token that the person types. `wasWrong`: the one before was refused. */
export function askForToken(wasWrong) {
  const dialog = byId("token-dialog");
  const field = byId("token");
  byId("token-words").textContent = wasWrong ? "That token is refused: check it and type it again." : "";
  field.value = "";
  dialog.addEventListener("cancel", stay);
  if (!dialog.open) dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const go = (event) => {
      event.preventDefault();
      const token = field.value.trim();
      // Headers carry ASCII only.
      if (!/^[\x20-\x7e]+$/.test(token)) {
        byId("token-words").textContent = token ? "A token has no such characters: type it again." : "Type the token first.";
        return field.focus();
      }
      byId("token-form").removeEventListener("submit", go);
      dialog.removeEventListener("cancel", stay);
      dialog.close();
      return resolve(token);
    };
    byId("token-form").addEventListener("submit", go);
  });
}

// Without a token nothing works, so Escape does not close it.
const stay = (event) => event.preventDefault();
