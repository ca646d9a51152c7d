local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
local after, most, most_bytes, pages = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local taken, states, known, bytes, renaming = {}, {}, {}, 0, false
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local acked, life = redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[3])
local function look(key)
    known[key] = true
    local document = redis.pcall('JSON.GET', key)
    if type(document) == 'string' then
        bytes = bytes + #document
        states[#states + 1] = {key, document}
    else
        local mark = redis.call('GET', ARGV[5] .. string.sub(key, tonumber(ARGV[6])))
        states[#states + 1] = {key, false, redis.call('TYPE', key), mark}
    end
end
local function read()
    for page = 1, pages do
        local entries = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', most)
        for _, entry in ipairs(entries) do
            local fields, key, event = entry[2], '', ''
            for i = 1, #fields, 2 do
                if fields[i] == 'k' then key = fields[i + 1] end
                if fields[i] == 'e' then event = fields[i + 1] end
                if fields[i] == 'd' then bytes = bytes + #fields[i + 1] end
            end
            if not renaming and (page > pages - 1 or (key ~= '' and not known[key])) then
                if #states >= most or bytes > most_bytes or page == pages then return end
            end
            if key ~= '' and not known[key] then look(key) end
            renaming = event == 'rename_from'
            taken[#taken + 1] = entry
            after = entry[1]
        end
        if #entries < most or (#states >= most and not renaming) then return end
    end
end
read()
for i = 7, #ARGV do
    if not known[ARGV[i]] then look(ARGV[i]) end
end
return {taken, states, newest, acked, life, memory}
