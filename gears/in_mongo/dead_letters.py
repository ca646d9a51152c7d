"""Dead letters: the states of keys that MongoDB refused, as they are kept there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from bson import Binary, Int64
from pymongo import UpdateOne

from gears.contract.mapping import Mapping
from gears.contract.write_tokens import Token

MAX_BYTES = 1024 * 1024
"""How much of a refused document a dead letter keeps."""

MAX_ENTRIES = 1000
"""How many of the refused entries it names, the latest."""

MAX_KEY = 8 * 1024
"""How much of the key of a refused document it keeps."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A state of a key that was refused.

    Args:
        key: the Redis key.
        entries: the refused entries, oldest first.
        fence: the version of the state, which what MongoDB holds instead is given: nothing older may come after this.
        reason: what is wrong.
        document: JSON text of the refused document; empty when it is lost.
    """

    key: bytes
    entries: Sequence[Token]
    fence: int
    reason: str
    document: bytes


def keep(letter: DeadLetter, mapping: Mapping, now: datetime) -> UpdateOne:
    """What keeps it; the same state again changes nothing."""
    newest = letter.entries[-1]
    content = {
        "mapping": mapping.prefix,
        "key": letter_key(letter.key),
        "version": Int64(letter.fence),
        "entries": [str(token) for token in letter.entries[-MAX_ENTRIES:]],
        "reason": letter.reason,
        "document": Binary(letter.document[:MAX_BYTES]),
        "bytes": len(letter.document),
        "at": now,
    }
    letter_id = f"{newest} {content['key']}"
    update = {"$setOnInsert": content, "$addToSet": {"fences": Int64(letter.fence)}}
    return UpdateOne({"_id": letter_id}, update, upsert=True)


def letter_key(key: bytes) -> str:
    """How a dead letter names a key."""
    if len(key) <= MAX_KEY:
        return key.decode(errors="backslashreplace")
    shown = key[:MAX_KEY].decode(errors="backslashreplace")
    return f"{shown}... ({len(key)} bytes, sha256 {sha256(key).hexdigest()})"
