local found, last = {}, false
for _, entry in ipairs(redis.call('XRANGE', ARGV[2], ARGV[3], '+', 'COUNT', ARGV[4])) do
    last = entry[1]
    for i = 1, #entry[2], 2 do
        if entry[2][i] == 'k' and entry[2][i + 1] == ARGV[1] then found[#found + 1] = entry end
    end
end
return {found, last}
