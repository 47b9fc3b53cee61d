"use strict";
// Two methods on the same noise, a page of prompts at a time. The address keeps the choice, so that it can be sent to others:
// gallery.html#first=full&second=ilf&order=loss&metric=clip_score, and with &sample=17 to one prompt alone.
document.documentElement.classList.add("js");
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const list = document.querySelector(".cards");
const template = byId("card");
const NOBODY = -1; // the third method, where two are compared
let page = 0;
let sample = null; // the one sample that the address names

const chosen = () => ({
  first: +byId("first").value,
  second: +byId("second").value,
  third: +byId("third").value,
  view: +byId("third").value === NOBODY ? byId("view").value : "beside", // a border divides two images only
  order: byId("order").value,
  metric: data.metrics.find((metric) => metric.key === byId("metric")?.value),
  text: byId("filter").value.trim().toLowerCase(),
});

function address(method, row) {
  const { folder, files } = data.methods[method];
  const file = files ? files[row] : `${String(data.indices[row]).padStart(6, "0")}.png`;
  return file ? `${data.root}/${folder}/${encodeURIComponent(file)}` : "";
}

// How much better the second is than the first, in the metric's unit; where the first has no values, how good the second is.
function gain({ first, second, metric }, row) {
  const b = metric?.values[second]?.[row];
  if (b == null) return null;
  const a = metric.values[first]?.[row] ?? 0;
  return (b - a) * (metric.higher ? 1 : -1);
}

// How good the second is by itself.
function level({ second, metric }, row) {
  const b = metric?.values[second]?.[row];
  return b == null ? null : b * (metric.higher ? 1 : -1);
}

function rows(choice) {
  const found = data.indices.map((_, row) => row).filter(
    (row) => (sample === null || data.indices[row] === sample) && address(choice.first, row) && address(choice.second, row)
      && data.prompts[row].toLowerCase().includes(choice.text));
  if (choice.order === "index") return found;
  const sign = ["loss", "worst"].includes(choice.order) ? 1 : -1;
  const key = ["loss", "gain"].includes(choice.order) ? gain : level;
  const keyed = found.map((row) => [key(choice, row), row]);
  return keyed.sort(([a, i], [b, j]) => (a === null) - (b === null) || sign * (a - b) || i - j).map(([, row]) => row);
}

const named = ({ first, second, third }) =>
  [first, second, third].map((method, i) => (method >= 0 ? `${"ABC"[i]} ${data.methods[method].label}` : "")).filter(Boolean).join(", ");
const number = (value) => (Math.abs(value) < 1e4 ? value.toPrecision(4) : String(Math.round(value)));
const text = (value) => (value == null ? "no value" : number(value).replaceAll("-", "−"));

function values(choice, row) {
  const { first, second, third, metric } = choice;
  if (!metric) return "";
  const a = metric.values[first]?.[row], b = metric.values[second]?.[row];
  const difference = a == null || b == null ? "" : `; difference ${b > a ? "+" : ""}${text(b - a)}`;
  return `${metric.title} (${metric.higher ? "higher" : "lower"} is better): ${text(a)} and ${text(b)}${difference}${third === NOBODY ? "" : `; C: ${text(metric.values[third]?.[row])}`}`;
}

function split(card, percent) {
  if (chosen().view !== "slider") percent = 0;
  card.querySelector(".second").style.clipPath = `inset(0 0 0 ${percent}%)`;
  card.querySelector(".divider").style.left = `${percent}%`;
  const slider = card.querySelector("input");
  slider.value = percent;
  slider.setAttribute("aria-valuetext", `${percent}% of the first method`);
}

function card(choice, row) {
  const made = template.content.firstElementChild.cloneNode(true);
  const heading = `Sample ${data.indices[row]}: ${data.prompts[row]}`;
  const link = made.querySelector("h2 a");
  link.textContent = heading;
  link.href = `#${state(choice, data.indices[row])}`;
  made.querySelector(".pair").classList.add(choice.view);
  for (const part of made.querySelectorAll(".third, .tag.c")) part.hidden = choice.third === NOBODY;
  for (const side of choice.third === NOBODY ? ["first", "second"] : ["first", "second", "third"]) {
    const image = made.querySelector(`img.${side}`);
    image.alt = `${data.methods[choice[side]].label}: ${data.prompts[row]}`;
    image.src = address(choice[side], row) || "data:,";
  }
  const slider = made.querySelector("input");
  slider.hidden = choice.view !== "slider";
  slider.setAttribute("aria-label", `How much of the first method is shown, sample ${data.indices[row]}`);
  slider.addEventListener("input", () => split(made, slider.value));
  made.querySelector(".values").textContent = values(choice, row);
  split(made, byId("every").value);
  return made;
}

function show() {
  const choice = chosen(), found = rows(choice), start = page * data.page;
  const shown = found.slice(start, start + data.page);
  list.replaceChildren(...shown.map((row) => card(choice, row)));
  byId("state").textContent = shown.length
    ? `${start + 1} to ${start + shown.length} of ${found.length} prompts: ${named(choice)}`
    : "No prompt fits.";
  byId("view").disabled = choice.third !== NOBODY;
  byId("every").disabled = choice.view !== "slider";
  byId("back").disabled = page === 0;
  byId("next").disabled = start + data.page >= found.length;
}

function state({ first, second, third, order, metric, text }, only) {
  const found = new URLSearchParams({ first: data.methods[first].label, second: data.methods[second].label, order });
  if (third !== NOBODY) found.set("third", data.methods[third].label);
  if (byId("view").value !== "slider") found.set("view", byId("view").value);
  if (metric) found.set("metric", metric.key);
  if (text) found.set("prompt", text);
  if (only !== undefined) found.set("sample", only);
  return found;
}

function remember() {
  history.replaceState(null, "", `#${state(chosen())}`);
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const side of ["first", "second"]) {
    const at = data.methods.findIndex((method) => method.label === state.get(side));
    byId(side).value = at < 0 ? data.pair[side === "first" ? 0 : 1] : at;
  }
  byId("third").value = data.methods.findIndex((method) => method.label === state.get("third")); // NOBODY where it is unknown
  sample = state.has("sample") ? +state.get("sample") : null;
  for (const id of ["order", "metric", "view"]) {
    const known = byId(id) && [...byId(id).options].some((option) => option.value === state.get(id));
    if (known) byId(id).value = state.get(id);
  }
  byId("filter").value = state.get("prompt") ?? "";
}

function changed() {
  page = 0;
  sample = null;
  remember();
  show();
}
for (const id of ["first", "second", "third", "view", "order", "metric"]) byId(id)?.addEventListener("change", changed);
byId("filter").addEventListener("input", changed);
byId("every").addEventListener("input", () => [...list.children].forEach((made) => split(made, byId("every").value)));
function turn(by) {
  page += by;
  show();
  scrollTo(0, 0);
}
byId("back").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
addEventListener("hashchange", () => (restore(), (page = 0), show()));
restore();
show();
