// Sends a recipe as the tutorial's script does. The arguments are the command; app.py among them stands for its text.
import fs from "node:fs";
import { createClient } from "redis";

const client = createClient({ url: process.env.REDIS_URL, socket: { reconnectStrategy: false } });
await client.connect();
const words = process.argv.slice(2).map((word) => (word === "app.py" ? fs.readFileSync(word, "utf8") : word));
console.log(await client.sendCommand(words));
process.exit();
