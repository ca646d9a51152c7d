local kind = redis.call('TYPE', ARGV[1])['ok']
local document = kind == 'ReJSON-RL' and redis.call('JSON.GET', ARGV[1])
local aside = {}
local kept = redis.call('HGETALL', ARGV[3])
for i = 2, #kept, 2 do
    if string.match(kept[i], '^%S+ (.*)$') == ARGV[1] then aside[#aside + 1] = kept[i - 1] end
end
return {kind, document, redis.call('PTTL', ARGV[1]), redis.call('GET', ARGV[2]), aside}
