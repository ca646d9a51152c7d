// The write-through recipe for RedisGears 2.0, one library per mapping.
//
// `capture` runs after every write to a key of the mapping, in the write's own atomic unit, and adds an entry to the
// sync stream. Writes made by the functions below don't fire it (Gears doesn't call a library for what it did itself),
// so they add their entry themselves, before the write: an entry too many is harmless, one too few is not.
//
// Every entry names the run of the server that added it (`r`), so that after a restart writes made since can be told
// from those that survived it.
//
// CONFIG: {version, prefix, stream, aside, checked, lease, gone, ticket, ticket_ms, events, deletes}

const config = redis.config;
const events = new Set(config.events);
const deletes = new Set(config.deletes);
const appears = new Set(['rename_to', 'copy_to', 'restore', 'move_to']);
const start = config.prefix.length + 1;
const JSON_TYPE = 'ReJSON-RL';
const MOST_SEARCHED = 200;
const LEAP_MS = 60000;

let run = null;
let begun = false;

// What tells this run of the server from others.
function serverRun(client) {
    run ??= String(client.call('INFO', 'server')).match(/run_id:(\w{8})/)[1];
    return run;
}

function ticketOf(key) {
    return config.ticket + key.substring(start);
}

// Adds an entry; returns its id. Whoever reads the key from MongoDB meanwhile can't fill it any more. (Keys that are no
// text, and come as bytes, are never filled.)
function add(client, key, event, ...more) {
    if (typeof key === 'string') client.call('DEL', ticketOf(key));
    const fields = ['k', key, 'e', event, 'r', serverRun(client), ...more];
    let id = String(client.call('XADD', config.stream, '*', ...fields));
    if (!begun) id = leap(client, id, fields);
    begun = true;
    return id;
}

// The first entry of a run, on a stream that is ahead of the clock: ids go on where Redis remembers, so entries that it
// lost when it was restarted may have had the next ones. They are passed over, since nobody could tell them apart; and so
// are those that another run passed on to, which may be lost as well.
function leap(client, id, fields) {
    const ms = Number(id.split('-')[0]);
    if (ms < (Number(client.call('TIME')[0]) + 1) * 1000) return id;
    client.call('XDEL', config.stream, id);
    const more = parseInt(serverRun(client), 16) % LEAP_MS;
    return String(client.call('XADD', config.stream, `${ms + LEAP_MS + more}-0`, ...fields));
}

function isJson(client, key) {
    return String(client.call('TYPE', key)) === JSON_TYPE;
}

function exists(client, key) {
    return Number(client.call('EXISTS', key)) === 1;
}

function mark(client, key, id) {
    client.call('SET', config.gone + key.substring(start), id);
}

function current(client, key) {
    const document = client.call('JSON.GET', key);
    return document === null || document === undefined ? '' : String(document);
}

redis.registerKeySpaceTrigger('capture', config.prefix + ':', (client, data) => {
    if (!events.has(data.event)) return;
    // What was renamed on in the same MULTI isn't there any more, but tells where that came from.
    const passed = data.event === 'rename_to' && !exists(client, data.key_raw);
    if (appears.has(data.event) && !passed && !isJson(client, data.key_raw)) return;
    const id = add(client, data.key ?? data.key_raw, data.event);
    if (deletes.has(data.event) && data.key !== null && !exists(client, data.key_raw)) mark(client, data.key, id);
}, {description: 'adds an entry to the sync stream for every write'});

// What keeps a write from being made: a word for the caller, or null. What Redis may have forgotten equals nothing.
function obstacle(client, key, condition, expected, limit) {
    const type = String(client.call('TYPE', key));
    if (type !== 'none' && type !== JSON_TYPE) return 'foreign';
    const present = type === JSON_TYPE;
    if (condition === 'absent' && present) return 'failed';
    if (condition === 'present' && !present) return 'failed';
    if (condition === 'equals' && (!present || current(client, key) !== expected)) return 'failed';
    if (Number(client.call('XLEN', config.stream)) >= Number(limit)) return 'backlog';
    if (condition === 'equals' && String(client.call('GET', config.checked)) !== serverRun(client)) return 'unchecked';
    return null;
}

// Stores a document. What follows it are pairs of a path and an amount: numbers that the parser of JSON doesn't read
// exactly.
function set(client, key, document, increments) {
    client.call('JSON.SET', key, '$', document);
    for (let i = 0; i < increments.length; i += 2) {
        client.call('JSON.NUMINCRBY', key, increments[i], increments[i + 1]);
    }
}

redis.registerFunction('put', (client, key, document, condition, expected, limit, ...increments) => {
    const word = obstacle(client, key, condition, expected, limit);
    if (word !== null) return [word];
    const existed = exists(client, key) ? '1' : '0';
    const id = add(client, key, 'json.set');
    try {
        set(client, key, document, increments);
    } catch (error) {
        client.call('XDEL', config.stream, id);
        throw error;
    }
    return ['ok', id, existed, current(client, key)];
}, {description: 'stores a document and captures it'});

redis.registerFunction('remove', (client, key, condition, expected, limit) => {
    const word = obstacle(client, key, condition, expected, limit);
    if (word !== null) return [word];
    const id = add(client, key, 'del');
    mark(client, key, id);
    const existed = String(client.call('DEL', key));
    return ['ok', id, existed, ''];
}, {
    description: 'deletes a key and captures it, also a key that only MongoDB holds',
    flags: [redis.functionFlags.ALLOW_OOM],
});

// Whether a write to the key waits that MongoDB doesn't take now, as gears/aside.py keeps it.
function isAside(client, key) {
    return Object.values(client.call('HGETALL', config.aside)).map(String).some(
        (what) => what.substring(what.indexOf(' ') + 1) === key);
}

// Whether a write to the key may wait to be committed: what MongoDB holds is not its present state then.
function maybePending(client, key) {
    return Number(client.call('XLEN', config.stream)) > MOST_SEARCHED || writtenSince(client, key, '0-0')
        || isAside(client, key);
}

redis.registerFunction('ticket', (client, key, token) => {
    if (exists(client, key) || maybePending(client, key)) return null;
    client.call('SET', ticketOf(key), token, 'NX', 'PX', String(config.ticket_ms));
    return String(client.call('GET', ticketOf(key)));
}, {description: 'lets the caller read a key from MongoDB and fill it; any write to the key takes this away'});

redis.registerFunction('fill', (client, key, document, version, token, ...increments) => {
    if (exists(client, key) || String(client.call('GET', ticketOf(key))) !== token) return null;
    add(client, key, 'fill', 'v', version);
    set(client, key, document, increments);
    return current(client, key);
}, {description: 'gives Redis what MongoDB holds'});

redis.registerFunction('roll_back', (client, key, seen, document, version, since, ...increments) => {
    if (!isJson(client, key) || current(client, key) !== seen || writtenSince(client, key, since)) return '0';
    const left = Number(client.call('PTTL', key));
    if (version !== '') add(client, key, 'fill', 'v', version);
    if (document === '') client.call('DEL', key);
    else set(client, key, document, increments);
    if (left > 0) client.call('PEXPIRE', key, String(left));
    return '1';
}, {description: 'gives Redis back what MongoDB holds after a refusal', flags: [redis.functionFlags.ALLOW_OOM]});

// Entries after `since` that tell of a write to the key; fills and backfills don't.
function writtenSince(client, key, since) {
    for (const [, fields] of client.call('XRANGE', config.stream, '(' + since, '+')) {
        const entry = {};
        for (let i = 0; i < fields.length; i += 2) entry[String(fields[i])] = String(fields[i + 1]);
        if (entry.k === key && entry.e !== 'fill' && entry.e !== 'backfill') return true;
    }
    return false;
}

redis.registerFunction('restore', (client, key, document, since, token, ...increments) => {
    if (client.call('GET', config.lease) !== token) return 'lease lost';
    const type = String(client.call('TYPE', key));
    if ((type !== 'none' && type !== JSON_TYPE) || writtenSince(client, key, since)) return '0';
    client.call('DEL', ticketOf(key));
    if (document === '') client.call('DEL', key);
    else set(client, key, document, increments);
    return '1';
}, {description: 'gives Redis what it lost, uncaptured', flags: [redis.functionFlags.ALLOW_OOM]});
