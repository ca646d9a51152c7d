// Small charts of the last 15 minutes, drawn by hand.

import { byId, el, say, svg } from "./dom.js";
import { count, duration, rate } from "./words.js";

const WIDTH = 600, HEIGHT = 90, MINUTES = 15;
const GAP_MS = 5000; // nobody looked meanwhile: the line is broken

const CHARTS = [
  { title: "Lag", lines: [{ at: 1, name: "lag" }], text: duration, least: 0.1 },
  { title: "Backlog", lines: [{ at: 2, name: "backlog" }], text: count, least: 10 },
  { title: "Writes/s", lines: [{ at: 3, name: "captured" }, { at: 4, name: "committed" }], text: rate, least: 5 },
];

let points = [];
const drawn = [];

/** Begins with the points that there are: `[ms, lag, backlog, captured, committed]`. */
export function startCharts(history) {
  points = history;
  if (!drawn.length) for (const chart of CHARTS) drawn.push(added(chart));
}

/** Adds a point, unless there is none to be had, and draws. */
export function addPoint(point) {
  if (!point) return;
  points.push(point);
  const since = point[0] - MINUTES * 60_000;
  while (points[0][0] < since) points.shift();
  for (const chart of drawn) draw(chart, since);
}

function added(chart) {
  const paths = chart.lines.map((line) => svg("path", { class: `line ${line.name}`, "vector-effect": "non-scaling-stroke" }));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, ...paths);
  const now = el("span", { class: "now" }), top = el("span", { class: "top" });
  const keys = chart.lines.length > 1 ? chart.lines.map((line) => el("span", { class: `key ${line.name}`, text: line.name })) : [];
  byId("charts").append(el("figure", {},
    el("figcaption", {}, el("strong", { text: chart.title }), now, ...keys),
    el("div", { class: "plot" }, top, picture),
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", { text: "15 min ago" }), el("span", { text: "now" }))));
  return { ...chart, paths, picture, now, top };
}

function draw({ title, lines, text, least, paths, picture, now, top }, since) {
  const highest = Math.max(0, ...points.flatMap((point) => lines.map((line) => point[line.at])));
  const scale = Math.max(least, highest);
  lines.forEach((line, n) => paths[n].setAttribute("d", path(line.at, since, scale)));
  const last = points[points.length - 1][lines[0].at];
  say(now, text(last));
  say(top, text(scale));
  picture.setAttribute("aria-label", `${title} over the last 15 minutes: now ${text(last)}, at most ${text(highest)}`);
}

function path(at, since, scale) {
  let before = -Infinity;
  return points.map((point) => {
    const x = ((point[0] - since) / (MINUTES * 60_000)) * WIDTH;
    const y = HEIGHT - 1 - (point[at] / scale) * (HEIGHT - 2);
    const step = point[0] - before > GAP_MS ? "M" : "L";
    before = point[0];
    return `${step}${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join("");
}
