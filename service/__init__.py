"""The HTTP API over RedisJSON, acknowledged by MongoDB."""
