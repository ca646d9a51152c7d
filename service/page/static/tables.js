// What there is to read: the latest writes, the parts, audits, what was given back, dead letters.

import { byId, el, redraw, table } from "./dom.js";
import { count, duration, time } from "./words.js";

const ANSWERS = { 201: "created", 200: "done", 204: "deleted", 202: "in Redis, did not wait", 504: "not confirmed in time", 499: "client gone" };

/** Shows all of a sample. */
export function showTables({ mappings, latest, audits, dead_letters: letters }) {
  redraw(byId("latest"), latest, () => latestWrites(latest));
  redraw(byId("parts"), mappings.map((mapping) => mapping.parts), () => parts(mappings));
  redraw(byId("audits"), audits, () => auditReports(audits));
  redraw(byId("given"), mappings.map(({ rewinds, warming }) => [rewinds, warming]), () => given(mappings));
  const counts = mappings.map((mapping) => mapping.dead_letters);
  redraw(byId("letters"), [letters, counts], () => deadLetters(letters, counts));
}

const none = (text) => el("p", { class: "none", text });

function latestWrites(latest) {
  if (!latest.length) return none("None yet.");
  return table("The latest writes", ["At", "Write", "Answer", "Took"], latest.map((write) => [
    time(write.at), el("code", { text: `${write.method} ${write.path}` }),
    ANSWERS[write.status] ?? `refused, ${write.status}`, duration(write.seconds)]));
}

function parts(mappings) {
  return table("Capture, committer and reconciler", ["Mapping", "Part", "State", "Why", "What to do"],
    mappings.flatMap((mapping) => mapping.parts.map((part) => [
      mapping.prefix, part.name, el("span", { class: "level", "data-level": part.level, text: part.state }),
      part.reason, part.remedy])));
}

function auditReports(audits) {
  if (!audits.length) return none("No audit yet.");
  return table("The last audits", ["Mapping", "At", "Because", "Compared", "Differed", "Repaired", "Left"],
    audits.map((audit) => [
      audit.prefix, time(audit.at), audit.because, `${count(audit.compared)} in ${duration(audit.seconds)}`,
      count(audit.differed), count(audit.repaired),
      el("span", { class: "level", "data-level": audit.left ? "bad" : "ok",
        text: audit.left ? `${count(audit.left)}, since ${time(audit.drift_since ?? audit.at)}` : "none" })]));
}

function given(mappings) {
  const lines = mappings.flatMap(({ prefix, rewinds, warming }) => [
    warming && el("li", {}, `${prefix}: Redis is being warmed, ${count(warming.done)} of about ${count(warming.total)} documents. `,
      el("progress", { value: warming.done, max: warming.total, "aria-label": `Warming ${prefix}` })),
    rewinds?.last && el("li", { text: `${prefix}: ${lost(rewinds)}` }),
  ]).filter(Boolean);
  return lines.length ? el("ul", {}, ...lines) : none("Redis never forgot anything.");
}

function lost({ count: times, last }) {
  const often = times === 1 ? "once" : `${count(times)} times`;
  const done = last.done_at ? `${count(last.restored)} of ${count(last.forgotten)} keys were given back by ${time(last.done_at)}`
    : `${count(last.forgotten)} keys are being given back`;
  return `Redis forgot what was committed ${often}, the last time found at ${time(last.at)}: ${done}.`;
}

function deadLetters(letters, counts) {
  if (!letters.length) return none("No document was refused.");
  const all = counts.reduce((sum, one) => sum + (one ?? 0), 0);
  return [
    el("p", { class: "small", text: `${count(all)} in all; the latest are shown, without their documents. Redis was rolled back to ` +
      "what MongoDB holds. Mend what the reason says, then have the document written again, or drop it:" }),
    table("Dead letters", ["Key", "Refused at", "Why", "Commands"], letters.map((letter) => [
      el("code", { text: letter.key }), time(letter.at), letter.reason, commands(letter)])),
  ];
}

function commands({ id }) {
  return el("pre", { text: ["show", "retry", "drop"].map((verb) => `writethrough dead-letters ${verb} ${id}`).join("\n") });
}
