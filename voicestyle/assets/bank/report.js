"use strict";
// Everything that comes from a file name or a reason is set as text, never as HTML.
const PAGE = 100;
const FIGURES = [
  ["faces", 0, ""], ["score", 2, ""], ["size", 0, " px"], ["yaw", 1, "°"], ["pitch", 1, "°"], ["sharpness", 0, ""],
  ["outside", 2, ""],
];
const STATES = { kept: "kept", rejected: "rejected", unchosen: "not used" };
const byId = (id) => document.getElementById(id);
const rows = JSON.parse(byId("rows").textContent);
const chunks = [...document.querySelectorAll("script.details")];
const parsed = new Map();
let found = rows;
let page = 0;

function detailsOf(row) {
  const chunk = Math.floor(row.number / PAGE);
  if (!parsed.has(chunk)) {
    if (parsed.size > 20) parsed.clear();
    parsed.set(chunk, JSON.parse(chunks[chunk].textContent));
  }
  return parsed.get(chunk)[row.number % PAGE];
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function picture(content, caption, alt) {
  const figure = element("figure");
  if (content) {
    figure.append(element("img", { src: "data:image/webp;base64," + content, alt, width: 128, height: 128 }));
    figure.append(element("figcaption", {}, caption));
  } else {
    figure.append(caption);
  }
  return figure;
}

function curves(losses) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Losses over the steps");
  const list = element("ul");
  Object.entries(losses).forEach(([name, values], index) => {
    const largest = Math.max(...values.filter((value) => value !== null), 1e-12);
    const points = values.map((value, at) => [
      values.length > 1 ? (100 * at) / (values.length - 1) : 50, 38 - (36 * (value ?? 0)) / largest,
    ]);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.map((point) => point.map((x) => x.toFixed(1)).join(",")).join(" "));
    line.style.stroke = `var(--loss-${index % 4})`;
    svg.append(line);
    const item = element("li", {}, `${name} ${short(values[0])} → ${short(values[values.length - 1])}`);
    item.style.color = `var(--loss-${index % 4})`;
    list.append(item);
  });
  return element("div", { class: "losses" }, svg, list);
}

function short(value) {
  return value === null || value === undefined ? "?" : Number(value.toPrecision(3)).toString();
}

function figureList(row, details) {
  const list = element("dl", { class: "figures" });
  const add = (name, text) => list.append(element("div", {}, element("dt", {}, name), element("dd", {}, text)));
  if (row.psnr !== null) add("PSNR", row.psnr.toFixed(1) + " dB");
  if (row.identity !== null) add("identity", row.identity.toFixed(3));
  if (details.chosen_by) add("chosen by", details.chosen_by + (details.chosen_by > 1 ? " videos" : " video"));
  for (const [name, digits, unit] of FIGURES) {
    const value = details.figures[name];
    if (value !== null && value !== undefined) add(name, value.toFixed(digits) + unit);
  }
  return list;
}

function card(row) {
  const details = detailsOf(row);
  const pair = element("div", { class: "pair" });
  const any = details.aligned || details.inversion;
  pair.append(picture(details.aligned, any ? "aligned" : "no aligned face", "Aligned photograph " + row.key));
  if (any) pair.append(picture(details.inversion, details.inversion ? "inversion" : "not inverted", "Inversion of " + row.key));
  const state = element("p", { class: "state" }, element("b", {}, STATES[row.state]));
  state.style.margin = 0;
  if (row.reason) state.append(element("span", {}, row.reason));
  if (row.state === "unchosen") state.append(element("span", {}, "no video chose it"));
  const body = element("div", { class: "body" }, element("h3", { class: "key" }, row.key), state);
  const figures = figureList(row, details);
  if (figures.children.length) body.append(figures);
  if (details.losses) body.append(curves(details.losses));
  return element("article", { class: row.state + (any ? "" : " none") }, pair, body);
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const shown = found.slice(page * PAGE, (page + 1) * PAGE);
  byId("cards").replaceChildren(...shown.map(card));
  if (!shown.length) byId("cards").append(element("p", {}, "No photograph matches these filters."));
  byId("count").textContent = found.length
    ? `${page * PAGE + 1}–${page * PAGE + shown.length} of ${found.length}`
    : "0 photographs";
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
}

function filter() {
  const text = byId("text").value.trim().toLowerCase();
  const state = byId("state").value;
  const kind = byId("kind")?.value ?? "";
  found = rows.filter(
    (row) =>
      (!state || row.state === state) &&
      (!kind || row.kind === kind) &&
      (!text || row.key.toLowerCase().includes(text) || (row.reason ?? "").toLowerCase().includes(text)),
  );
  const [name, direction] = byId("order").value.split("-");
  if (direction) {
    const sign = direction === "up" ? 1 : -1;
    const value = (row) => (row[name] === null ? Infinity : sign * row[name]); // those without a figure come last
    found.sort((a, b) => value(a) - value(b) || a.number - b.number || 0);
  }
  page = 0;
  show();
}

function turn(pages) {
  page += pages;
  show();
  byId("bar").scrollIntoView();
}

rows.forEach((row, number) => { row.number = number; });
byId("bar").addEventListener("input", filter);
byId("bar").addEventListener("submit", (event) => event.preventDefault());
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
for (const button of document.querySelectorAll("[data-kind]")) {
  button.addEventListener("click", () => {
    byId("state").value = "";
    byId("kind").value = button.dataset.kind;
    filter();
    byId("bar").scrollIntoView();
  });
}
filter();
