"""What is set aside: entries whose documents MongoDB doesn't take now, though it takes others.

Others are acknowledged meanwhile; they themselves stay pending until they are committed.
"""

from typing import Any

from gears.redis import Redis
from gears.stream import Names, Token


async def read_aside(redis: Redis, names: Names) -> dict[Token, tuple[bytes, str]]:
    """The entries that are set aside, each with its key and event."""
    found: Any = await redis.hgetall(names.aside)
    return {Token.parse(token): _parse(value) for token, value in found.items()}


async def is_aside(redis: Redis, names: Names, token: Token) -> bool:
    """Whether this entry is set aside."""
    return bool(await redis.hexists(names.aside, str(token)))


def value_of(key: bytes, event: str) -> bytes:
    """What is kept of an entry."""
    return event.encode() + b" " + key


def _parse(value: bytes) -> tuple[bytes, str]:
    event, _, key = value.partition(b" ")
    return key, event.decode()
