return {redis.call('GET', KEYS[3]), redis.call('GET', KEYS[4]), redis.call('XRANGE', KEYS[5], ARGV[4], ARGV[4])}
