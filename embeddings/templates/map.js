// Draws the points of `map` (map.html defines it) on the canvas, with a legend that hides values, zoom and a card.
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d"), card = document.getElementById("card");
const choice = document.querySelector("select"), legend = document.querySelector("aside div");
let by = map.by, hidden = new Set(), view = {scale: 1, x: 0, y: 0}, hovered = null;
const fingers = new Map();

function positionOf(point) {
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) - 32;
  const left = (canvas.clientWidth - side) / 2, top = (canvas.clientHeight - side) / 2;
  return [(left + point.x * side) * view.scale + view.x, (top + point.y * side) * view.scale + view.y];
}
function draw() {
  const ratio = window.devicePixelRatio || 1, paper = getComputedStyle(document.body).backgroundColor;
  canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const point of map.points) {
    if (hidden.has(point[by])) continue;
    const [x, y] = positionOf(point), radius = (point === hovered ? 8 : 4.5);
    pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fillStyle = map.colors[by][point[by]]; pen.fill();
    pen.strokeStyle = paper; pen.stroke();
  }
}
function label() {
  legend.replaceChildren(...Object.entries(map.colors[by]).map(([value, color]) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    dot.style.background = color;
    button.setAttribute("aria-pressed", String(!hidden.has(value)));
    button.append(dot, `${value} ${map.points.filter(point => point[by] === value).length}`);
    button.onclick = () => { hidden.has(value) ? hidden.delete(value) : hidden.add(value); label(); draw(); };
    return button;
  }));
}
function show(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let nearest = 14, hit = null;
  for (const point of map.points) {
    if (hidden.has(point[by])) continue;
    const [px, py] = positionOf(point), distance = Math.hypot(px - x, py - y);
    if (distance < nearest) { nearest = distance; hit = point; }
  }
  if (hit !== hovered) {
    hovered = hit; draw();
    card.replaceChildren();
    if (hit) {
      if (hit.thumbnail) card.append(Object.assign(new Image(), {src: hit.thumbnail, alt: ""}));
      card.append(`${hit.category}, ${hit.split}, ${hit.defect}`, document.createElement("br"), hit.path);
    }
  }
  card.style.display = hit ? "block" : "none";
  card.style.left = Math.min(event.clientX + 14, innerWidth - card.offsetWidth - 8) + "px";
  card.style.top = Math.min(event.clientY + 14, innerHeight - card.offsetHeight - 8) + "px";
}
function zoom(factor, clientX, clientY) {
  const box = canvas.getBoundingClientRect(), x = clientX - box.left, y = clientY - box.top;
  const scale = Math.min(60, Math.max(0.5, view.scale * factor));
  view = {scale, x: x - (x - view.x) * scale / view.scale, y: y - (y - view.y) * scale / view.scale};
  draw();
}
canvas.onwheel = event => {
  event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
};
canvas.onpointerdown = event => {
  fingers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); show(event);
};
canvas.onpointermove = event => {
  const before = fingers.get(event.pointerId);
  if (before && fingers.size === 2) {
    const [first, second] = [...fingers.values()].filter(finger => finger.pointerId !== event.pointerId).concat(event);
    const gap = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    zoom(gap(first, second) / (gap(first, before) || 1), first.clientX, first.clientY);
  } else if (before) {
    view.x += event.clientX - before.clientX; view.y += event.clientY - before.clientY; draw();
  }
  if (before) fingers.set(event.pointerId, event);
  show(event);
};
canvas.onpointerup = canvas.onpointercancel = event => fingers.delete(event.pointerId);
canvas.onpointerleave = () => { card.style.display = "none"; hovered = null; draw(); };
canvas.ondblclick = () => { view = {scale: 1, x: 0, y: 0}; draw(); };
choice.value = by;
choice.onchange = () => { by = choice.value; hidden = new Set(); label(); draw(); };
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
label(); draw();
