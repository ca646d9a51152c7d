redis.call('DEL', KEYS[3], KEYS[4])
redis.call('SET', KEYS[3], ARGV[4])
redis.call('SET', KEYS[4], ARGV[5])
