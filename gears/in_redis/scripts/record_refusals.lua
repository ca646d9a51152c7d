redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('ZADD', KEYS[1], unpack(ARGV, 2))
