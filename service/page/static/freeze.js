// The button that freezes MongoDB, where everything runs embedded.

import { byId, say } from "./dom.js";
import { headers } from "./stream.js";

let path;

/** Shows the button if there is something to ask. */
export function startFreezing(told) {
  if (told && !path) byId("freeze").addEventListener("click", freeze);
  path = told;
  byId("demo").hidden = !told;
}

async function freeze() {
  const button = byId("freeze");
  button.disabled = true;
  try {
    const answer = await fetch(path, { method: "POST", headers: headers() });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    await countDown(told.seconds);
  } catch (error) {
    say(byId("freeze-said"), error.message);
  } finally {
    button.disabled = false;
  }
}

async function countDown(seconds) {
  say(byId("freeze-said"), "MongoDB is frozen. Write a document: Redis has it at once, and MongoDB gets it when it goes on.");
  const button = byId("freeze");
  const label = button.textContent;
  for (let left = Math.ceil(seconds); left > 0; left--) {
    button.textContent = `Frozen for ${left} s more`;
    await new Promise((done) => setTimeout(done, 1000));
  }
  button.textContent = label;
  say(byId("freeze-said"), "MongoDB goes on, and gets all that waited.");
}
