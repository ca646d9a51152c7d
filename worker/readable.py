"""How much of what Redis holds is read at a time."""

from collections.abc import Sequence
from typing import Any

from gears.in_redis.client import Redis

JSON_TYPE = b"ReJSON-RL"
"""What Redis calls the type of JSON documents."""

READ_BYTES = 4 * 1024 * 1024
"""How much of documents is read at a time, the last one not counted."""


async def readable(redis: Redis, keys: Sequence[bytes]) -> int:
    """How many of these keys, from the first on, to read at a time; one at least."""
    if len(keys) < 2:
        return len(keys)
    async with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.execute_command("JSON.DEBUG", "MEMORY", key)
        sizes: Any = await pipeline.execute(raise_on_error=False)
    total = 0
    for n, size in enumerate(sizes):
        total += size if isinstance(size, int) else 0  # another type has none
        if total > READ_BYTES:
            return max(1, n)
    return len(keys)
