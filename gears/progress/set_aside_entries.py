"""What is set aside: entries whose documents MongoDB doesn't take now, though it takes others.

Others are acknowledged meanwhile; they themselves stay pending until they are committed.
"""

from base64 import b64decode, b64encode
from typing import Any

from gears.contract.entries import Entry
from gears.contract.redis_names import Names
from gears.contract.write_tokens import Token
from gears.in_redis.client import Redis


async def read_aside(redis: Redis, names: Names) -> dict[Token, Entry]:
    """The entries that are set aside."""
    found: Any = await redis.hgetall(names.aside)
    tokens = {Token.parse(token): value for token, value in found.items()}
    return {token: _parse(token, value) for token, value in tokens.items()}


def value_of(entry: Entry) -> bytes:
    """What is kept of an entry: `<event> <key>`, or `<event>:<the document in Base64> <key>`."""
    document = b"" if entry.document is None else b":" + b64encode(entry.document)
    return b"%b%b %b" % (entry.event.encode(), document, entry.key)


def _parse(token: Token, value: bytes) -> Entry:
    head, _, key = value.partition(b" ")
    event, colon, document = head.partition(b":")
    return Entry(token.id, key, event.decode(), life=token.life, document=b64decode(document) if colon else None)
