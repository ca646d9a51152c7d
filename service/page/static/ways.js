// The way of a write, mapping by mapping: Redis -> sync stream -> MongoDB.

import { byId, el, say } from "./dom.js";
import { count, duration, rate } from "./words.js";

const SLOWEST_S = 4, FASTEST_S = 0.25; // for a dot to the next one's place, at 1 and at 1,000 writes a second

const drawn = new Map();

/** Shows how much moves, and where it waits. */
export function showWays(mappings, servers) {
  for (const mapping of mappings) {
    if (!drawn.has(mapping.prefix)) drawn.set(mapping.prefix, way(mapping));
    const { redis, stream, mongo, captured, committed } = drawn.get(mapping.prefix);
    show(redis, servers.redis.error ? "does not answer" : servers.redis.seconds == null ? "" : `answers in ${duration(servers.redis.seconds)}`,
      Boolean(servers.redis.error));
    const waits = mapping.waiting ? `${count(mapping.waiting)} wait, the oldest for ${duration(mapping.lag)}` : "nothing waits";
    show(stream, mapping.waiting == null ? "unknown" : waits, mapping.waiting == null || mapping.lag > 1);
    show(mongo, servers.mongo.error ? "does not answer" : servers.mongo.seconds == null ? "" : `answers in ${duration(servers.mongo.seconds)}`,
      Boolean(servers.mongo.error));
    move(captured, mapping.captured, "captured");
    move(committed, mapping.committed, "committed");
  }
}

function way(mapping) {
  const parts = {
    redis: stop("Redis", `${mapping.prefix}:*`),
    captured: connection(),
    stream: stop("Sync stream", `sync:{${mapping.prefix}}`),
    committed: connection(),
    mongo: stop("MongoDB", mapping.namespace),
  };
  byId("ways").append(el("div", { class: "way", role: "group", "aria-label": mapping.prefix },
    ...Object.values(parts).map((part) => part.element)));
  return parts;
}

function stop(name, what) {
  const state = el("span", { class: "state" });
  return { state, element: el("div", { class: "stop" }, el("strong", { text: name }), el("code", { text: what }), state) };
}

function connection() {
  const label = el("span", { class: "rate" });
  const dots = el("span", { class: "dots", "aria-hidden": "true" });
  return { label, dots, element: el("div", { class: "connection" }, label, dots) };
}

function show({ element, state }, text, bad) {
  say(state, text);
  element.classList.toggle("bad", bad);
}

function move({ label, dots }, perSecond, what) {
  say(label, `${rate(perSecond)}/s ${what}`);
  const moves = perSecond > 0.05;
  dots.classList.toggle("moving", moves);
  if (moves) {
    const share = Math.min(1, Math.log10(1 + perSecond) / 3);
    dots.style.setProperty("--pace", `${(SLOWEST_S + (FASTEST_S - SLOWEST_S) * share).toFixed(1)}s`);
  }
}
