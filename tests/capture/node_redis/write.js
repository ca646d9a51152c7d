// Writes documents with each node-redis, and prints what they are answered, a JSON object a line.
// The arguments: pairs of a package and the version of RESP that it is to speak.
import { promisify } from "node:util";

const url = process.env.REDIS_URL;

async function connect(name, RESP) {
  const { createClient } = await import(name);
  if (name === "redis3") return commands(createClient(url));
  const client = createClient({ url, RESP, socket: { reconnectStrategy: false } });
  await client.connect();
  return client.json;
}

/** What `client.json` is in later versions. */
function commands(client) {
  const send = promisify(client.send_command).bind(client);
  return {
    set: (key, path, document) => send("JSON.SET", [key, path, JSON.stringify(document)]),
    numIncrBy: (key, path, by) => send("JSON.NUMINCRBY", [key, path, String(by)]),
  };
}

async function answer(reply) {
  try {
    return await reply;
  } catch (error) {
    return { error: error.constructor.name, message: error.message };
  }
}

for (const words = process.argv.slice(2); words.length; ) {
  const [name, RESP] = words.splice(0, 2);
  const json = await connect(name, Number(RESP));
  const key = `todos:${name}-${RESP}`;
  const set = await answer(json.set(key, "$", { n: 1 }));
  const number = await answer(json.numIncrBy(key, "$.n", 1));
  const refused = await answer(json.set(`${key}-refused`, "$", [1]));
  console.log(JSON.stringify({ set, number, refused }));
}
process.exit();
