"use strict";
// What a reader may choose: cost axis, metrics, methods; and what a plot says under the pointer or the arrow keys.
// Without this script everything is shown.
document.documentElement.classList.add("js");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byMethod = new Map();
for (const element of all("[data-m]")) {
  const key = element.dataset.m;
  byMethod.set(key, [...(byMethod.get(key) ?? []), element]);
}

// Cost axis: one group of figures at a time.
function chooseCost(cost) {
  for (const group of all("details.costs")) {
    group.hidden = group.dataset.cost !== cost;
    group.open = true;
  }
}
for (const radio of all("input[name=cost]")) {
  radio.addEventListener("change", () => chooseCost(radio.value));
  if (radio.checked) chooseCost(radio.value);
}

// Metrics and methods: a box hides everything that bears its name.
function showMetric(box) {
  for (const element of all("[data-k]")) if (element.dataset.k === box.dataset.metric) element.hidden = !box.checked;
}
function showMethod(box) {
  for (const element of byMethod.get(box.dataset.method) ?? []) element.toggleAttribute("hidden", !box.checked);
}
function setMethod(box, checked) {
  box.checked = checked;
  showMethod(box);
}
for (const box of all("input[data-metric]")) {
  box.addEventListener("change", () => showMetric(box));
  showMetric(box); // a reloaded page may remember unchecked boxes
}
for (const box of all("input[data-method]")) {
  box.addEventListener("change", () => showMethod(box));
  if (!box.checked) showMethod(box);
}
for (const button of all("button[data-family]")) {
  button.addEventListener("click", () => {
    const boxes = all("input", button.parentElement);
    const show = boxes.every((box) => !box.checked);
    for (const box of boxes) setMethod(box, show);
    button.textContent = show ? "hide all" : "show all";
  });
}

// Plots: the nearest point under the pointer, or point after point with the arrow keys.
const tip = document.getElementById("tip");
let marked = null;
function unmark() {
  marked?.classList.remove("on");
  marked = null;
  tip.hidden = true;
}
function markPoint(point) {
  if (point === marked) return;
  unmark();
  marked = point;
  point.classList.add("on");
  tip.textContent = point.dataset.tip;
  tip.hidden = false;
  const box = point.querySelector("use").getBoundingClientRect();
  const width = tip.offsetWidth, height = tip.offsetHeight, margin = 8;
  const left = Math.min(Math.max(margin, box.left + box.width / 2 - width / 2), document.documentElement.clientWidth - width - margin);
  const above = box.top - height - margin;
  tip.style.left = `${left}px`; // set from script, which the policy allows; a style attribute it would not
  tip.style.top = `${above > margin ? above : box.bottom + margin}px`;
}
function middle(point) {
  const box = point.querySelector("use").getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}
function visible(points) {
  return points.filter((point) => !point.hasAttribute("hidden"));
}
for (const plot of all(".plot:not(.bars)")) {
  const points = all(".pt", plot);
  for (const point of points) {
    const title = point.querySelector("title");
    point.dataset.tip = title.textContent;
    title.remove(); // else the browser's own tooltip would come, too
  }
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", "Plot: arrow keys go from method to method");
  plot.addEventListener("pointermove", (event) => {
    let best = null, least = 24 ** 2;
    for (const point of visible(points)) {
      const [x, y] = middle(point);
      const distance = (x - event.clientX) ** 2 + (y - event.clientY) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    best ? markPoint(best) : unmark();
  });
  plot.addEventListener("pointerleave", unmark);
  plot.addEventListener("blur", unmark);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") unmark();
    if (!step) return;
    event.preventDefault();
    const shown = visible(points).sort((a, b) => middle(a)[0] - middle(b)[0]);
    const at = shown.indexOf(marked);
    if (shown.length) markPoint(shown[at < 0 ? (step > 0 ? 0 : shown.length - 1) : (at + step + shown.length) % shown.length]);
  });
}
// The command that made this run, for the clipboard.
for (const button of all("button[data-copy]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  });
}
addEventListener("scroll", unmark, { passive: true });
