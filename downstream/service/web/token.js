// The token, asked for when the service wants one.

import { element } from "./elements.js";

/** What asks a person for the token of `whose`, such as "This service", in a dialog of its own. */
export function tokenAsker(whose) {
  const field = element("input", { type: "password", id: "token", autocomplete: "current-password", spellcheck: "false" });
  const words = element("p", { id: "token-words", class: "wrong", role: "alert" });
  const form = element("form", { id: "token-form", method: "dialog", novalidate: true },
    element("label", { class: "field" }, element("span", {}, "Token"), field), words,
    element("p", { class: "choices" }, element("button", { class: "main" }, "Go on")));
  const dialog = element("dialog", { id: "token-dialog", "aria-labelledby": "token-title" },
    element("h2", { id: "token-title" }, `${whose} wants a token`),
    element("p", {}, "Ask whoever runs it. It is kept in this tab only, until it is closed."), form);
  document.body.append(dialog);

  /** Promise the token that the person types. `wasWrong`: the one before was refused. */
  return (wasWrong) => {
    words.textContent = wasWrong ? "That token is refused: check it and type it again." : "";
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
          words.textContent = token ? "A token has no such characters: type it again." : "Type the token first.";
          return field.focus();
        }
        form.removeEventListener("submit", go);
        dialog.removeEventListener("cancel", stay);
        dialog.close();
        return resolve(token);
      };
      form.addEventListener("submit", go);
    });
  };
}

// Without a token nothing works, so Escape does not close it.
const stay = (event) => event.preventDefault();
