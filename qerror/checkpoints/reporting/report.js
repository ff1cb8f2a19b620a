"use strict";
// Sorting, filtering, views of the map, and drawings of a tensor. Without it the page is complete but for the drawings.
const data = JSON.parse(document.getElementById("data").textContent);
for (const each of document.querySelectorAll(".js")) each.classList.add("live");

// -- the map of layers and modules ------------------------------------------------------------------------------------

const view = document.getElementById("view");
function paint(name) {
  const rows = data.views[name];
  const known = rows.flat().filter((value) => value !== null);
  const low = Math.min(...known), high = Math.max(...known);
  const steps = data.palette.length - 1;
  document.querySelectorAll("#heat tbody tr").forEach((row, a) => {
    row.querySelectorAll("td").forEach((cell, b) => {
      const value = rows[a][b];
      cell.classList.toggle("none", value === null);
      cell.textContent = value === null ? "" : value.toFixed(Math.abs(high) < 10 ? 2 : 1);
      const share = high > low ? (value - low) / (high - low) : 0.5;
      const step = Math.min(steps, Math.max(0, Math.round(share * steps)));
      cell.style.background = value === null ? "" : data.palette[step];
      cell.style.color = value === null ? "" : data.ink[step];
    });
  });
  document.getElementById("view-name").textContent = name;
  document.getElementById("low").textContent = low.toFixed(1);
  document.getElementById("high").textContent = high.toFixed(1);
}
if (view) view.addEventListener("change", () => paint(view.value));

// -- the table of tensors ----------------------------------------------------------------------------------------------

const table = document.getElementById("tensors");
const body = table.tBodies[0];
const every = [...body.rows];
table.classList.add("live");
const order = new Intl.Collator("en", { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent;
  if (text === "") return null;
  const number = text === "\u221e" ? Infinity : Number(text);
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return order.compare(String(a), String(b));
}

function sort(column, direction) {
  const keyed = every.map((row) => [key(row, column), row]);
  keyed.sort(([a], [b]) => {
    // What is missing comes last in either direction.
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * compare(a, b);
  });
  close();
  body.append(...keyed.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    if (at === column) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
}

[...table.tHead.rows[0].cells].forEach((cell, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = cell.textContent;
  cell.replaceChildren(button);
  button.addEventListener("click", () => sort(column, cell.getAttribute("aria-sort") === "ascending" ? -1 : 1));
});

const filter = document.getElementById("filter");
function narrow() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  close();
  for (const row of every) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${every.length} tensors`;
}
filter.addEventListener("input", narrow);

// -- drawings of a tensor ----------------------------------------------------------------------------------------------

const detail = document.createElement("div");
detail.id = "detail";
// In the table, below its tensor.
const drawn = document.createElement("tr");
drawn.className = "drawn";
const across = drawn.insertCell();
across.colSpan = table.tHead.rows[0].cells.length;
across.append(detail);
const WIDTH = 460, HEIGHT = 250, LEFT = 76, RIGHT = 14, TOP = 16, BOTTOM = 42;

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function canvas(label) {
  const made = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  made.append(element("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
  return made;
}

function titles(svg, below, left) {
  svg.append(element("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, below));
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  svg.append(element("text", { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, left));
}

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

// Three to six round numbers between two.
function ticks(low, high) {
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(6)));
  return found;
}

function histogram(one) {
  const svg = canvas("Histogram of the values over their scales, with the levels");
  const total = one.counts.reduce((a, b) => a + b, 0);
  // Logarithmic, so that the few values at the ends are seen: they make the error.
  const shares = one.counts.map((count) => Math.log10(Math.max(count / total, 1e-7)));
  const low = Math.max(-7, Math.floor(Math.min(...shares.filter((value) => value > -7))));
  const high = Math.ceil(Math.max(...shares));
  const x = scale(-one.end, one.end, LEFT, WIDTH - RIGHT);
  const y = scale(low, high, HEIGHT - BOTTOM, TOP);
  for (let power = low; power <= high; power++) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(power), y2: y(power) }));
    const said = `${Number((100 * 10 ** power).toPrecision(1))} %`;
    svg.append(element("text", { x: LEFT - 6, y: y(power) + 4, "text-anchor": "end" }, said));
  }
  const width = (x(one.end) - x(-one.end)) / shares.length;
  shares.forEach((share, at) => {
    if (share > low) {
      svg.append(element("rect", {
        class: "bar", x: x(-one.end) + at * width + 0.4, width: width - 0.8, y: y(share), height: y(low) - y(share),
      }));
    }
  });
  // Of many levels only a comb is seen.
  for (const level of one.levels) {
    svg.append(element("line", { class: "level", x1: x(level), x2: x(level), y1: TOP, y2: one.levels.length > 40 ? TOP + 8 : HEIGHT - BOTTOM }));
  }
  for (const tick of ticks(-one.end, one.end)) {
    svg.append(element("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(tick)));
  }
  titles(svg, "value over its scale (lines: levels)", "share of values, log");
  return svg;
}

function clipping(one) {
  const svg = canvas("Error against clip");
  const db = (mse) => 10 * Math.log10(one.power / mse);
  const lines = one.mse.map(db), marks = [db(one.best), db(one.minmax), one.present ? db(one.present.mse) : NaN].filter(Number.isFinite);
  const all = [...lines, ...marks].filter(Number.isFinite);
  const low = Math.min(...all) - 0.6, high = Math.max(...all) + 0.6;
  const x = scale(data.clips[0], data.clips[data.clips.length - 1], LEFT, WIDTH - RIGHT);
  const y = scale(low, high, HEIGHT - BOTTOM, TOP);
  for (const tick of ticks(low, high)) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(element("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const tick of [0.4, 0.6, 0.8, 1, 1.2]) {
    svg.append(element("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(tick)));
  }
  const points = lines.map((value, at) => `${x(data.clips[at]).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  svg.append(element("polyline", { class: "front", points }));
  svg.append(element("line", { class: "best", x1: LEFT, x2: WIDTH - RIGHT, y1: y(db(one.best)), y2: y(db(one.best)) }));
  const top = lines.indexOf(Math.max(...lines));
  svg.append(element("circle", { class: "dot", cx: x(data.clips[top]), cy: y(lines[top]), r: 5 }));
  if (one.present && Number.isFinite(db(one.present.mse))) {
    const inside = (ratio) => x(Math.min(data.clips[data.clips.length - 1], Math.max(data.clips[0], ratio)));
    const [low, middle, high] = one.present.ratio.map(inside), at = y(db(one.present.mse));
    svg.append(element("line", { class: "present", x1: low, x2: high, y1: at, y2: at }));
    svg.append(element("path", { class: "present", d: `M${middle - 6.5},${at}l6.5,-6.5l6.5,6.5l-6.5,6.5z` }));
  }
  // Last, so that it is seen where the scales in use are those of minmax.
  svg.append(element("circle", { class: "ring", cx: x(1), cy: y(db(one.minmax)), r: 5 }));
  titles(svg, "clip over the largest magnitude of a group", "SQNR, dB");
  return svg;
}

function inUse(one) {
  if (!one.present) return "";
  const db = (10 * Math.log10(one.power / one.present.mse)).toFixed(2);
  return ` Diamond: the scales in use (${one.present.format}), ${db} dB, at their median over minmax; its line spans four fifths of the groups.`;
}

function figure(svg, caption) {
  const made = document.createElement("figure");
  const said = document.createElement("figcaption");
  said.textContent = caption;
  made.append(svg, said);
  return made;
}

function close() {
  for (const each of every) each.classList.remove("open");
  drawn.remove();
}

function open(row) {
  const one = data.profiles[row.dataset.name];
  const again = row.classList.contains("open");
  close();
  if (again) return;
  row.classList.add("open");
  const title = document.createElement("h3");
  title.textContent = row.dataset.name;
  const about = document.createElement("p");
  if (!one) {
    about.textContent = "No drawing: none of the formats has a scale.";
    detail.replaceChildren(title, about);
  } else {
    const seen = one.rows[0] === one.rows[1] ? `all ${one.rows[1]} rows` : `${one.rows[0]} of ${one.rows[1]} rows, evenly spaced`;
    about.textContent = `In ${one.format}, ${seen}.`;
    const pair = document.createElement("div");
    pair.className = "pair";
    const best = (10 * Math.log10(one.power / one.best)).toFixed(2);
    const minmax = (10 * Math.log10(one.power / one.minmax)).toFixed(2);
    pair.append(
      figure(histogram(one), "Each value over the best scale of its group. What lies beyond the last level is clipped."),
      figure(clipping(one), `One clip for all groups, scales of any size (line; dot: best). Dashed: the best stored scale of each group, ${best} dB. Ring: minmax as stored, ${minmax} dB.${inUse(one)}`),
    );
    const worst = document.createElement("p");
    // A sketch knows no rows.
    if (one.worst.length) worst.textContent = "Worst rows: " + one.worst.map(([at, db]) => `${at} (${db.toFixed(2)} dB)`).join(", ");
    detail.replaceChildren(title, about, pair, worst);
  }
  row.after(drawn);
}

for (const row of every) {
  row.tabIndex = 0;
  row.addEventListener("click", () => open(row));
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open(row);
  });
}
narrow();
