-- The write-through library for Redis 7 and later, or Valkey, without Gears: one per mapping.
--
-- The functions that write add their entry themselves, before the write: an entry too many is harmless, one too few is
-- not. What plain clients write, the worker learns from keyspace notifications and hands to `observe`.
--
-- Every entry names the life (`l`) in which it was captured: an unbroken stretch of Redis's memory. An entry of a key
-- that has a time to live carries its document (`d`), so that the commit needs no key.
--
-- Two lines stand before this text: `#!lua name=...` and `local config = {library, version, stream, life, tag, acked,
-- aside, checked, lease, gone, ticket, ticket_ms, own, start, deletes}`.

local JSON_TYPE = 'ReJSON-RL'
local MOST_SEARCHED = 200
-- How long it is known that a key was deleted which is given back as deleted: entries from before may wait so long.
local MARKED_SECONDS = 86400

-- The present life; a new one where Redis's memory isn't the one that the life is kept with: the memory's id is another
-- one after a restart, and after another server's memory was taken over. A life's name is never used again: it tells the
-- run of the server, when it began, and whose it is.
local function present_life()
    local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
    local life, kept_with = string.match(redis.call('GET', config.life) or '', '^(%w+) (%w+)$')
    if kept_with == memory then return life end
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w%w%w%w%w%w%w%w)')
    local time = redis.call('TIME')
    life = string.format('%s%013x%s', run, time[1] * 1000000 + time[2], config.tag)
    redis.call('SET', config.life, life .. ' ' .. memory)
    return life
end

local function gone(key)
    return config.gone .. string.sub(key, config.start)
end

local function ticket_of(key)
    return config.ticket .. string.sub(key, config.start)
end

-- Adds an entry; returns its id. Whoever reads the key from MongoDB meanwhile can't fill it any more.
local function add(key, event, ...)
    redis.call('DEL', ticket_of(key))
    return redis.call('XADD', config.stream, '*', 'k', key, 'e', event, 'l', present_life(), ...)
end

local function kind(key)
    return redis.call('TYPE', key)['ok']
end

local function current(key)
    return redis.call('JSON.GET', key) or ''
end

-- Tells whoever listens to keyspace events that the latest one of this key was ours.
local function own(key)
    redis.call('PUBLISH', config.own, key)
end

-- Brings the key to this state; returns Redis's error, if any. What follows the document are pairs of a path and an
-- amount: numbers that the parser of JSON doesn't read exactly.
local function set(key, document, ...)
    if document == '' then
        if redis.call('DEL', key) == 1 then own(key) end
        return
    end
    local reply = redis.pcall('JSON.SET', key, '$', document)
    if reply['err'] then return reply end
    own(key)
    local increments = {...}
    for i = 1, #increments, 2 do
        redis.call('JSON.NUMINCRBY', key, increments[i], increments[i + 1])
        own(key)
    end
end

-- Adds an entry that carries the document, if the key has a time to live: it may expire before that is committed.
local function keep_document(key)
    if redis.call('PTTL', key) >= 0 then add(key, 'expire', 'd', current(key)) end
end

-- What keeps a write from being made: a word for the caller, or nil. What Redis may have forgotten is no condition.
local function obstacle(key, condition, expected, limit)
    local found = kind(key)
    if found ~= 'none' and found ~= JSON_TYPE then return 'foreign' end
    local conditional = condition == 'absent' or condition == 'equals'
    if conditional and redis.call('GET', config.checked) ~= present_life() then return 'unchecked' end
    local present = found == JSON_TYPE
    if condition == 'absent' and present then return 'failed' end
    if condition == 'present' and not present then return 'failed' end
    if condition == 'equals' and (not present or current(key) ~= expected) then return 'failed' end
    if redis.call('XLEN', config.stream) >= tonumber(limit) then return 'backlog' end
end

-- Entries after `since` that tell of a write to the key; fills, backfills and times to live don't.
local function written_since(key, since)
    for _, entry in ipairs(redis.call('XRANGE', config.stream, '(' .. since, '+')) do
        local fields = {}
        for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
        if fields['k'] == key and fields['e'] ~= 'fill' and fields['e'] ~= 'backfill' and fields['e'] ~= 'expire' then
            return true
        end
    end
    return false
end

-- Whether a write to the key waits that MongoDB doesn't take now: it is set aside.
local function is_aside(key)
    for _, what in ipairs(redis.call('HGETALL', config.aside)) do
        if string.match(what, '^%S+ (.*)$') == key then return true end
    end
    return false
end

-- Whether anything waits that may be of the key.
local function waits(key)
    return redis.call('XLEN', config.stream) > 0 or is_aside(key)
end

-- Whether a write to the key may wait to be committed: what MongoDB holds is not its present state then.
local function maybe_pending(key)
    return redis.call('XLEN', config.stream) > MOST_SEARCHED or written_since(key, '0-0') or is_aside(key)
end

local function put(key, document, condition, expected, limit, ...)
    local word = obstacle(key, condition, expected, limit)
    if word then return {word} end
    local existed = redis.call('EXISTS', key)
    local id = add(key, 'json.set')
    local failure = set(key, document, ...)
    if failure then
        redis.call('XDEL', config.stream, id)
        return failure
    end
    keep_document(key)
    return {'ok', id, tostring(existed), current(key), present_life()}
end

local function remove(key, condition, expected, limit)
    local word = obstacle(key, condition, expected, limit)
    if word then return {word} end
    local existed = redis.call('EXISTS', key)
    local id = add(key, 'del')
    redis.call('SET', gone(key), id)
    set(key, '')
    return {'ok', id, tostring(existed), '', present_life()}
end

-- Lets the caller read the key from MongoDB and fill it with what it finds: a ticket, which any write to the key takes
-- away. Those who come before the next write share one.
local function ticket(key, token)
    if redis.call('EXISTS', key) == 1 or maybe_pending(key) then return false end
    redis.call('SET', ticket_of(key), token, 'NX', 'PX', config.ticket_ms)
    return redis.call('GET', ticket_of(key))
end

local function fill(key, document, version, token, ...)
    if redis.call('EXISTS', key) == 1 or redis.call('GET', ticket_of(key)) ~= token then return false end
    local id = add(key, 'fill', 'v', version)
    local failure = set(key, document, ...)
    if failure then
        redis.call('XDEL', config.stream, id)
        return failure
    end
    return current(key)
end

local function roll_back(key, seen, document, version, since, known, ...)
    if present_life() ~= known or kind(key) ~= JSON_TYPE or current(key) ~= seen then return '0' end
    if written_since(key, since) then return '0' end
    local left = redis.call('PTTL', key)
    if version ~= '' then add(key, 'fill', 'v', version) end
    local failure = set(key, document, ...)
    if left > 0 and redis.call('PEXPIRE', key, left) == 1 then own(key) end
    return failure or '1'
end

-- Only the committer may do this, and what follows, under its lease, in the life that it knows.
local function not_mine(token, known)
    if redis.call('GET', config.lease) ~= token then return 'lease lost' end
    if present_life() ~= known then return 'rewound' end
end

local function restore(key, document, since, token, known, ...)
    local word = not_mine(token, known)
    if word then return word end
    local found = kind(key)
    if (found ~= 'none' and found ~= JSON_TYPE) or written_since(key, since) then return '0' end
    redis.call('DEL', ticket_of(key))
    if document == '' and since ~= '0-0' then redis.call('SET', gone(key), since, 'EX', MARKED_SECONDS) end
    return set(key, document, ...) or '1'
end

-- Gives keys that are absent what MongoDB holds, which was read while `acked` was acknowledged; a document is its key, its
-- text, how many increments follow, and these. What has an entry on the stream was written to since.
local function warm(token, known, acked, ...)
    local word = not_mine(token, known)
    if word then return word end
    if redis.call('XLEN', config.stream) > MOST_SEARCHED or redis.call('GET', config.acked) ~= acked then return 'moved on' end
    local written, rest, given, i = {}, {...}, 0, 1
    for _, entry in ipairs(redis.call('XRANGE', config.stream, '-', '+')) do
        for n = 1, #entry[2], 2 do if entry[2][n] == 'k' then written[entry[2][n + 1]] = true end end
    end
    for i, what in ipairs(redis.call('HGETALL', config.aside)) do
        if i % 2 == 0 then written[string.match(what, '^%S+ (.*)$')] = true end
    end
    while rest[i] do
        local key, more = rest[i], tonumber(rest[i + 2])
        if not written[key] and redis.call('EXISTS', key) == 0 then
            redis.call('DEL', ticket_of(key))
            local failure = set(key, rest[i + 1], unpack(rest, i + 3, i + 2 + more))
            if failure then return failure end
            given = given + 1
        end
        i = i + 3 + more
    end
    return tostring(given)
end

-- Adds an entry for a key whose present state MongoDB doesn't hold, if Redis has forgotten nothing.
local function backfill(key, event, known)
    if present_life() ~= known or redis.call('GET', config.checked) ~= known then return '0' end
    add(key, event)
    return '1'
end

-- Adds an entry for each key that a plain client wrote; pairs of key and its latest event. A write that is learned of
-- after a delete that came later has none to add: the delete's entry tells of the key's state. But what a key was renamed
-- to has one, as deleted: it may have been renamed on, and tells where that came from. A delete that is learned of after a
-- later write is no reason to delete, should the key expire before that is committed.
local function observe(token, known, ...)
    local word = not_mine(token, known)
    if word then return word end
    local events = {...}
    for i = 1, #events, 2 do
        local key, event = events[i], events[i + 1]
        local found = kind(key)
        local deleted = found == 'none' and not config.deletes[event] and redis.call('EXISTS', gone(key)) == 1
        if (found == JSON_TYPE or found == 'none') and (not deleted or event == 'rename_to') then
            if found == JSON_TYPE and config.deletes[event] then event = 'json.set' end
            local id = event ~= 'expire' and add(key, event)
            if found == JSON_TYPE and waits(key) then keep_document(key) end
            if deleted or (found == 'none' and config.deletes[event]) then redis.call('SET', gone(key), id) end
        end
    end
end

local function register(name, write, ...)
    redis.register_function{
        function_name = config.library .. '_' .. name,
        callback = function(keys, args)
            if keys[1] then return write(keys[1], unpack(args)) end
            return write(unpack(args))
        end,
        description = config.version,
        flags = {...},
    }
end

register('life', present_life, 'allow-oom')
register('put', put)
register('remove', remove, 'allow-oom')
register('ticket', ticket)
register('fill', fill)
register('roll_back', roll_back, 'allow-oom')
register('restore', restore, 'allow-oom')
register('warm', warm)
register('backfill', backfill, 'allow-oom')
register('observe', observe, 'allow-oom')
