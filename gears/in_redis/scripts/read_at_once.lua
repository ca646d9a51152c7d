local replies, at = {}, 1
while at <= #ARGV do
    local size = tonumber(ARGV[at])
    replies[#replies + 1] = redis.call(unpack(ARGV, at + 1, at + size))
    at = at + size + 1
end
return replies
