"""What runs inside Redis, one recipe per engine; that for RedisGears 1.x is five files."""
