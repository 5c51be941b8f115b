// How images come in: dropped (folders too), pasted, chosen, or taken with the phone's camera.

import { byId } from "./elements.js";

/** Calls `take(files)` with whatever comes in. */
export function startIntake(take) {
  for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      take([...event.target.files]);
      event.target.value = ""; // the same file can be chosen again
    });
  }
  startDropping(take);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    take(files.map(named));
  });
}

function startDropping(take) {
  const veil = byId("drop-veil");
  let inside = 0; // enter and leave come for every element beneath
  const carriesFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const shown = (change) => {
    inside = Math.max(0, inside + change);
    veil.hidden = inside === 0;
  };
  window.addEventListener("dragenter", (event) => carriesFiles(event) && shown(1));
  window.addEventListener("dragleave", (event) => carriesFiles(event) && shown(-1));
  // All of the page takes drops: a file let go beside the mark would else replace the page.
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  window.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    shown(-inside);
    take(await filesOf(event.dataTransfer));
  });
}

/** All files, in the order of their names where folders were dropped. Entries have to be taken before any wait. */
async function filesOf(transfer) {
  const items = [...(transfer.items ?? [])].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const loose = items.map((item, position) => (entries[position] ? null : item.getAsFile()));
  const found = await Promise.all(entries.map((entry) => (entry ? filesBelow(entry) : [])));
  return [...found.flat(), ...loose.filter(Boolean)];
}

async function filesBelow(entry) {
  if (entry.name.startsWith(".")) return []; // what systems leave in folders
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    file.shownName = entry.fullPath.slice(1); // folders full of 001.png would look alike
    return [file];
  }
  const reader = entry.createReader();
  const children = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 a call
    if (some.length === 0) break;
    children.push(...some);
  }
  children.sort((first, second) => first.name.localeCompare(second.name, undefined, { numeric: true }));
  return (await Promise.all(children.map(filesBelow))).flat();
}

/** Pasted images are all called image.png: the time tells them apart. */
function named(file) {
  if (!/^image\.\w+$/.test(file.name)) return file;
  const time = new Date().toLocaleTimeString(undefined, { hour12: false }).replaceAll(":", "-");
  return new File([file], `pasted ${time}.${file.name.split(".").pop()}`, { type: file.type });
}
