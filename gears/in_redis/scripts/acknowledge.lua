local function after(a, b)
    local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
    local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
    if a_ms ~= b_ms then return tonumber(a_ms or 0) > tonumber(b_ms) end
    return tonumber(a_seq) > tonumber(b_seq)
end
if (redis.call('GET', KEYS[3]) or '') ~= ARGV[4] then return 'rewound' end
for i = 7, #KEYS do
    local mark = redis.call('GET', KEYS[i])
    if mark and not after(mark, ARGV[6]) then redis.call('EXPIRE', KEYS[i], ARGV[9]) end
end
redis.call('XTRIM', KEYS[4], 'MINID', ARGV[7])
redis.call('SET', KEYS[3], ARGV[5])
local i = 12
for _ = 1, ARGV[10] do
    redis.call('HDEL', KEYS[6], ARGV[i])
    i = i + 1
end
for _ = 1, ARGV[11] do
    redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1])
    i = i + 2
end
redis.call('PUBLISH', KEYS[5], ARGV[8])
return 'done'
