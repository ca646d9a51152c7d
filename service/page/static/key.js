// The form that asks where a key stands: in Redis, in MongoDB and in between.

import { byId, el } from "./dom.js";
import { headers } from "./stream.js";
import { count, duration, time } from "./words.js";

const STATES = {
  equal: ["ok", "Both sides hold the same."],
  absent: ["ok", "Neither side has it."],
  pending: ["", "A write to it waits to be committed."],
  cold: ["", "Only MongoDB has it: Redis dropped it, or never had it. A read through the API gives it back."],
  missing: ["bad", "Redis has it, MongoDB doesn't."],
  stale: ["bad", "MongoDB's document is older than Redis's."],
  ahead: ["bad", "MongoDB's document is newer than Redis's."],
  foreign: ["bad", "Redis holds another type than a JSON document."],
  unknown: ["", "It can't be told: the key keeps changing, or too many writes wait."],
};

let turn = 0;

/** Fills the form in. */
export function startKeyForm(mappings) {
  const select = byId("key-mapping");
  if (select.options.length) return;
  select.replaceChildren(...mappings.map(({ prefix }) => el("option", { value: prefix, text: prefix })));
  byId("key").addEventListener("submit", (event) => {
    event.preventDefault();
    look(++turn);
  });
}

async function look(mine) {
  const path = `./sync/keys/${byId("key-mapping").value}/${encodeURIComponent(byId("key-id").value)}`;
  let lines;
  try {
    const answer = await fetch(path, { headers: headers() });
    const told = await answer.json();
    lines = answer.ok ? linesOf(told) : [["bad", `${told.title}: ${told.detail}`]];
  } catch (error) {
    lines = [["bad", `The API can't be reached: ${error.message}`]];
  }
  if (mine === turn) byId("stands").replaceChildren(...lines.map(([level, text]) => el("li", { class: level, text })));
}

function linesOf({ state, fields, redis, pending, mongodb, deleted, last_commit: commit, dead_letter: letter }) {
  const [level, sentence] = STATES[state];
  return [
    [level, fields?.length ? `${sentence} They differ in ${fields.join(", ")}.` : sentence],
    ["", `Redis: ${redis.holds}${sized(redis)}${redis.expires_in == null ? "" : `, expires in ${duration(redis.expires_in)}`}`],
    ["", `Waiting: ${pending.entries} ${pending.entries === 1 ? "entry" : "entries"}${pending.set_aside ? ", some set aside" : ""}`],
    ["", mongodb ? `MongoDB: document${sized(mongodb)}, version ${mongodb.version ?? "none"}` : "MongoDB: nothing"],
    commit && ["", `Last commit: version ${commit.version}${commit.at ? `, ${at(commit.at)}` : ""}`],
    deleted && ["", `Deleted: version ${deleted.version}, ${at(deleted.at)}`],
    letter && ["bad", `Dead letter ${letter.id}, ${at(letter.at)}: ${letter.reason}${letter.written_since ? " (written since)" : ""}`],
  ].filter(Boolean);
}

const sized = ({ bytes }) => bytes == null ? "" : `, ${count(bytes)} bytes`;

const at = (text) => time(Date.parse(text) / 1000);
