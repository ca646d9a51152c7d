// The stream of samples, read with fetch: an EventSource could send no token.

const KEPT = "writethrough-token"; // in this tab, until it is closed
const SILENT_MS = 10_000; // a sample comes each second, and takes no longer than a few
const PAUSES_MS = [500, 1000, 2000, 5000];

export const token = {
  get: () => sessionStorage.getItem(KEPT),
  keep: (text) => sessionStorage.setItem(KEPT, text),
  forget: () => sessionStorage.removeItem(KEPT),
};

/** Headers of a request, with the token if there is one. */
export function headers(others = {}) {
  const kept = token.get();
  return kept ? { ...others, Authorization: `Bearer ${kept}` } : others;
}

/** Thrown where only another token helps. */
class NotAllowed extends Error {}

/**
 * Follows the stream for ever, across lost connections, until a token is needed.
 *
 * `on` has handlers: `hello(data)`, `sample(data)`, `lost(why)` when it is interrupted, `denied(why)` when it ends.
 */
export async function follow(on) {
  for (let tries = 0; ; tries++) {
    try {
      await read((name, data) => {
        tries = 0;
        on[name]?.(data);
      });
      on.lost("the connection ended");
    } catch (error) {
      if (error instanceof NotAllowed) return on.denied(error.message);
      on.lost(error.message);
    }
    await new Promise((done) => setTimeout(done, PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]));
  }
}

async function read(take) {
  const silence = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(new Error("nothing comes any more")), SILENT_MS);
  };
  try {
    heard();
    const answer = await fetch("-/events", { headers: headers(), signal: silence.signal, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) throw new NotAllowed((await answer.json()).detail);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    let rest = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done; ) {
      heard();
      const events = (rest + part.value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
        take(name, JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
