// How elements are made. Text only ever goes in as text: names of files come from strangers.

export const byId = (id) => document.getElementById(id);

/** An element with attributes (null and false are left out; on... are listeners) and children (elements or text). */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** One of the symbols of index.html; it says nothing to who cannot see it, the words beside it do. */
export function symbol(name) {
  return drawn("svg", { class: `symbol ${name}`, "aria-hidden": "true" }, drawn("use", { href: `#${name}` }));
}

/** What this browser was told to remember. Storage may be forbidden: then it forgets. */
export function remembered(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // See above.
  }
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}
