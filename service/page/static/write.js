// The form that writes a document, and shows it arrive in Redis and in MongoDB.

import { byId, el, say } from "./dom.js";
import { headers } from "./stream.js";
import { duration } from "./words.js";

const POLL_MS = [10, 20, 40, 80, 160, 320];

let forms = [];
let turn = 0;

/** Fills the form in. */
export function startForm(mappings) {
  if (forms.length) return;
  forms = mappings;
  const select = byId("write-mapping");
  select.replaceChildren(...mappings.map(({ prefix }) => el("option", { value: prefix, text: prefix })));
  select.addEventListener("change", fill);
  byId("write").addEventListener("submit", (event) => {
    event.preventDefault();
    write(++turn);
  });
  fill();
}

function fill() {
  const { id_example: id, example } = form();
  byId("write-id").value = id;
  byId("write-body").value = JSON.stringify(example, null, 2);
}

const form = () => forms.find(({ prefix }) => prefix === byId("write-mapping").value);

async function write(mine) {
  const began = performance.now();
  const after = () => duration((performance.now() - began) / 1000);
  const redis = el("li", { text: "Redis: on its way" }), mongo = el("li", { text: "MongoDB: not yet" });
  byId("arrival").replaceChildren(redis, mongo);
  try {
    const answer = await fetch(`./${form().prefix}/${encodeURIComponent(byId("write-id").value)}`, {
      method: "PUT",
      headers: headers({ "Content-Type": "application/json", Prefer: "respond-async" }),
      body: byId("write-body").value,
    });
    if (!answer.ok) {
      byId("arrival").replaceChildren(el("li", { class: "bad", text: complaint(await answer.json()) }));
      return;
    }
    arrived(redis, `Redis: has it, after ${after()}`);
    const word = answer.status === 202 ? await standing((await answer.json()).sync, mongo, after, mine) : "committed";
    if (word === "committed") arrived(mongo, `MongoDB: has it, after ${after()}`);
    else if (word) failed(mongo, `MongoDB: ${word}`);
  } catch (error) {
    failed(mongo, `The API can't be reached: ${error.message}`);
  }
}

/** Asks until MongoDB has it; undefined once another write has begun. */
async function standing(path, mongo, after, mine) {
  for (let tries = 0; mine === turn; tries++) {
    await new Promise((done) => setTimeout(done, POLL_MS[Math.min(tries, POLL_MS.length - 1)]));
    const answer = await fetch(`.${path}`, { headers: headers() });
    const told = await answer.json();
    const word = answer.ok ? Object.values(told.mappings)[0] : null;
    if (word && word !== "pending") return word === "refused" ? "refused it; see the dead letters below" : word;
    if (!answer.ok && answer.status !== 503) return told.detail;
    if (tries >= POLL_MS.length) say(mongo, `MongoDB: not yet; it waits on the sync stream`);
  }
}

function complaint({ title, detail, errors = [] }) {
  return [`${title}: ${detail}`, ...errors.map(({ field, message }) => `${field}: ${message}`)].join("; ");
}

function arrived(item, text) {
  item.className = "ok";
  say(item, text);
}

function failed(item, text) {
  item.className = "bad";
  say(item, text);
}
