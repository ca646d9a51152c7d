// The page: follows the stream of samples and hands each to those who show it.

import { addPoint, startCharts } from "./charts.js";
import { byId, el, redraw, say } from "./dom.js";
import { startFreezing } from "./freeze.js";
import { startKeyForm } from "./key.js";
import { follow, token } from "./stream.js";
import { showTables } from "./tables.js";
import { showWays } from "./ways.js";
import { startForm } from "./write.js";

let kind;

/** Shows a sentence; it is spoken only when it isn't the one of before with other numbers. */
function showSentence(sentence) {
  const shown = byId("sentence");
  say(shown, sentence.text);
  shown.dataset.level = sentence.level;
  if (sentence.kind !== kind) say(byId("spoken"), sentence.text);
  kind = sentence.kind;
  document.title = sentence.level === "ok" ? "Writethrough" : `! ${sentence.text}`;
}

function showHints({ servers, warnings: others }) {
  const away = [["Redis", servers.redis], ["MongoDB", servers.mongo]].filter(([, { error }]) => error);
  const warnings = [...away.map(([name, { error }]) => `${name}: ${error}`), ...others];
  byId("hints").hidden = !warnings.length;
  redraw(byId("hints"), warnings, () => warnings.map((text) => el("li", { text })));
}

function ask(why) {
  showSentence({ kind: "token", level: "wait", text: "A token is needed to see how it is." });
  say(byId("ask-why"), `${token.get() ? `This token does not do: ${why}.` : "This service takes tokens."} The page needs one with the scope admin.`);
  token.forget();
  byId("live").hidden = byId("forget").hidden = true;
  byId("ask").hidden = false;
  byId("token").focus();
}

const handlers = {
  hello(data) {
    byId("ask").hidden = true;
    byId("live").hidden = false;
    byId("forget").hidden = !token.get();
    startCharts(data.history);
    startForm(data.mappings);
    startKeyForm(data.mappings);
    startFreezing(data.freeze);
  },
  sample(data) {
    showSentence(data.sentence);
    showHints(data);
    showWays(data.mappings, data.servers);
    addPoint(data.point);
    showTables(data);
  },
  lost(why) {
    showSentence({ kind: "lost", level: "bad", text: `The API does not answer this page, which goes on trying: ${why}.` });
  },
  denied: ask,
};

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.keep(byId("token").value.trim());
  byId("token").value = "";
  byId("ask").hidden = true;
  follow(handlers);
});

byId("forget").addEventListener("click", () => {
  token.forget();
  location.reload();
});

follow(handlers);
