// The write-through recipe for RedisGears 2.0, one library per mapping.
//
// `capture` runs after every write to a key of the mapping, in the write's own atomic unit, and adds an entry to the
// sync stream. Writes made by the functions below don't fire it (Gears doesn't call a library for what it did itself),
// so they add their entry themselves, before the write: an entry too many is harmless, one too few is not.
//
// Every entry names the life (`l`) in which it was captured: an unbroken stretch of Redis's memory. An entry of a key
// that has a time to live carries its document (`d`), so that the commit needs no key.
//
// Two lines stand before this text: `#!js name=...` and `const config = {version, prefix, database, stream, life, tag,
// acked, aside, checked, lease, gone, ticket, ticket_ms, events, deletes};`.

const events = new Set(config.events);
const deletes = new Set(config.deletes);
const appears = new Set(['rename_to', 'copy_to', 'restore', 'move_to']);
const tellsOfNoWrite = new Set(['fill', 'backfill', 'expire']);
const start = config.prefix.length + 1;
const JSON_TYPE = 'ReJSON-RL';
const MOST_SEARCHED = 200;
// How long it is known that a key was deleted which is given back as deleted: entries from before may wait so long.
const MARKED_SECONDS = '86400';

// Whether a command runs in the mapping's database: the others have no life. COPY tells, since it copies nothing to
// where it comes from.
function isElsewhere(client) {
    try {
        client.call('COPY', config.life, config.life, 'DB', String(config.database));
    } catch (error) {
        return !String(error).includes('same');
    }
    return true;
}

// The present life; a new one where Redis's memory isn't the one that the life is kept with: the memory's id is another
// one after a restart, and after another server's memory was taken over. A life's name is never used again: it tells the
// run of the server, when it began, and whose it is. In another database: null, if that was asked.
function presentLife(client, anywhere = false) {
    const [life, keptWith] = String(client.call('GET', config.life)).split(' ');
    const info = String(client.call('INFO', 'replication'));
    const start = info.indexOf('master_replid:') + 14;
    const memory = info.substring(start, start + 40);
    if (keptWith === memory) return life;
    if (anywhere && isElsewhere(client)) return null;
    const run = String(client.call('INFO', 'server')).match(/run_id:(\w{8})/)[1];
    const [seconds, microseconds] = client.call('TIME').map(Number);
    const began = run + (seconds * 1000000 + microseconds).toString(16).padStart(13, '0') + config.tag;
    client.call('SET', config.life, began + ' ' + memory);
    return began;
}

function ticketOf(key) {
    return config.ticket + key.substring(start);
}

// Adds an entry; returns its id. Whoever reads the key from MongoDB meanwhile can't fill it any more. (Keys that are no
// text, and come as bytes, are never filled.)
function add(client, key, event, ...more) {
    if (typeof key === 'string') client.call('DEL', ticketOf(key));
    return String(client.call('XADD', config.stream, '*', 'k', key, 'e', event, 'l', presentLife(client), ...more));
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

// Adds an entry that carries the document, if the key has a time to live: it may expire before that is committed.
function keepDocument(client, key) {
    if (Number(client.call('PTTL', key)) >= 0) add(client, key, 'expire', 'd', current(client, key));
}

// Whether a write to the key waits that MongoDB doesn't take now: it is set aside.
function isAside(client, key) {
    return Object.values(client.call('HGETALL', config.aside)).map(String).some(
        (what) => what.substring(what.indexOf(' ') + 1) === key);
}

redis.registerKeySpaceTrigger('capture', config.prefix + ':', (client, data) => {
    if (!events.has(data.event)) return;
    // What was renamed on in the same MULTI isn't there any more, but tells where that came from.
    const passed = data.event === 'rename_to' && !exists(client, data.key_raw);
    if (appears.has(data.event) && !passed && !isJson(client, data.key_raw)) return;
    if (presentLife(client, true) === null) return;
    if (data.event === 'expire') {
        const waits = Number(client.call('XLEN', config.stream)) > 0 || isAside(client, data.key);
        if (waits && data.key !== null && isJson(client, data.key_raw)) keepDocument(client, data.key);
        return;
    }
    const id = add(client, data.key ?? data.key_raw, data.event);
    const present = exists(client, data.key_raw);
    if (present && data.key !== null && isJson(client, data.key_raw)) keepDocument(client, data.key);
    if (deletes.has(data.event) && data.key !== null && !present) mark(client, data.key, id);
}, {description: 'adds an entry to the sync stream for every write, version ' + config.version});

// What keeps a write from being made: a word for the caller, or null. What Redis may have forgotten is no condition.
function obstacle(client, key, condition, expected, limit) {
    const type = String(client.call('TYPE', key));
    if (type !== 'none' && type !== JSON_TYPE) return 'foreign';
    const conditional = condition === 'absent' || condition === 'equals';
    if (conditional && !isChecked(client)) return 'unchecked';
    const present = type === JSON_TYPE;
    if (condition === 'absent' && present) return 'failed';
    if (condition === 'present' && !present) return 'failed';
    if (condition === 'equals' && (!present || current(client, key) !== expected)) return 'failed';
    if (Number(client.call('XLEN', config.stream)) >= Number(limit)) return 'backlog';
    return null;
}

// Whether a committer has made sure that Redis has forgotten nothing.
function isChecked(client) {
    const present = presentLife(client);
    return String(client.call('GET', config.checked)) === present;
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
    keepDocument(client, key);
    return ['ok', id, existed, current(client, key), presentLife(client)];
}, {description: 'stores a document and captures it'});

redis.registerFunction('remove', (client, key, condition, expected, limit) => {
    const word = obstacle(client, key, condition, expected, limit);
    if (word !== null) return [word];
    const id = add(client, key, 'del');
    mark(client, key, id);
    const existed = String(client.call('DEL', key));
    return ['ok', id, existed, '', presentLife(client)];
}, {
    description: 'deletes a key and captures it, also a key that only MongoDB holds',
    flags: [redis.functionFlags.ALLOW_OOM],
});

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

redis.registerFunction('roll_back', (client, key, seen, document, version, since, known, ...increments) => {
    if (presentLife(client) !== known) return '0';
    if (!isJson(client, key) || current(client, key) !== seen || writtenSince(client, key, since)) return '0';
    const left = Number(client.call('PTTL', key));
    if (version !== '') add(client, key, 'fill', 'v', version);
    if (document === '') client.call('DEL', key);
    else set(client, key, document, increments);
    if (left > 0) client.call('PEXPIRE', key, String(left));
    return '1';
}, {description: 'gives Redis back what MongoDB holds after a refusal', flags: [redis.functionFlags.ALLOW_OOM]});

// Entries after `since` that tell of a write to the key.
function writtenSince(client, key, since) {
    for (const [, fields] of client.call('XRANGE', config.stream, '(' + since, '+')) {
        const entry = {};
        for (let i = 0; i < fields.length; i += 2) entry[String(fields[i])] = String(fields[i + 1]);
        if (entry.k === key && !tellsOfNoWrite.has(entry.e)) return true;
    }
    return false;
}

redis.registerFunction('restore', (client, key, document, since, token, known, ...increments) => {
    if (String(client.call('GET', config.lease)) !== token) return 'lease lost';
    if (presentLife(client) !== known) return 'rewound';
    const type = String(client.call('TYPE', key));
    if ((type !== 'none' && type !== JSON_TYPE) || writtenSince(client, key, since)) return '0';
    client.call('DEL', ticketOf(key));
    if (document !== '') {
        set(client, key, document, increments);
        return '1';
    }
    if (since !== '0-0') client.call('SET', config.gone + key.substring(start), since, 'EX', MARKED_SECONDS);
    client.call('DEL', key);
    return '1';
}, {description: 'gives Redis what it lost, uncaptured', flags: [redis.functionFlags.ALLOW_OOM]});

redis.registerFunction('warm', (client, token, known, acked, ...rest) => {
    if (String(client.call('GET', config.lease)) !== token) return 'lease lost';
    if (presentLife(client) !== known) return 'rewound';
    if (Number(client.call('XLEN', config.stream)) > MOST_SEARCHED) return 'moved on';
    if (String(client.call('GET', config.acked)) !== acked) return 'moved on';
    const written = new Set();
    for (const [, fields] of client.call('XRANGE', config.stream, '-', '+')) {
        for (let i = 0; i < fields.length; i += 2) if (String(fields[i]) === 'k') written.add(String(fields[i + 1]));
    }
    for (const what of Object.values(client.call('HGETALL', config.aside)).map(String)) {
        written.add(what.substring(what.indexOf(' ') + 1));
    }
    let given = 0;
    for (let i = 0; i < rest.length;) {
        const [key, document, more] = [rest[i], rest[i + 1], Number(rest[i + 2])];
        if (!written.has(key) && !exists(client, key)) {
            client.call('DEL', ticketOf(key));
            set(client, key, document, rest.slice(i + 3, i + 3 + more));
            given += 1;
        }
        i += 3 + more;
    }
    return String(given);
}, {
    description: 'gives absent keys what MongoDB holds, which was read while `acked` was acknowledged: each is its key, '
        + 'its document, how many increments follow, and these',
});

// Bytes as text; as they are if they are none.
function text(bytes) {
    const characters = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join('');
    try {
        return decodeURIComponent(escape(characters));
    } catch (error) {
        return bytes;
    }
}

redis.registerFunction('backfill', (client, key, event, known) => {
    if (!isChecked(client) || presentLife(client) !== text(known)) return '0';
    add(client, text(key), text(event));
    return '1';
}, {
    description: 'captures that MongoDB does not hold the present state of a key, if Redis has forgotten nothing',
    flags: [redis.functionFlags.ALLOW_OOM, redis.functionFlags.RAW_ARGUMENTS],
});

redis.registerFunction('life', (client) => presentLife(client), {
    description: 'tells the present life',
    flags: [redis.functionFlags.ALLOW_OOM],
});
