"""The documents that clients write: with what real ones hold, all of it told by the tag of the write that stored it.

A write that changes a part of a document changes `v` only; `w` is the tag of the one that stored the rest.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import DBRef, Decimal128, ObjectId

from gears.documents.numbers import read_by_redis

_READ_AGAIN = 4
"""How often a number may have been read by Redis's own parser: from a plain client, and when Redis loads a file, after
which a plain client may change another field; see docs/documents.md."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document(tag: str) -> dict[str, Any]:
    """What a write with this tag stores, as JSON."""
    at, oid, price, number = _drawn(tag)
    return {
        "v": tag,
        "at": {"$date": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")},
        "w": tag,
        "x": number,
        "near": {"$date": "tomorrow", "tz": tag},
        "more": [{"$ref": "users", "$id": tag}, {"$oid": oid}, {"price": {"$numberDecimal": price}}],
    }


def value_in(found: dict[str, Any] | None) -> str | None:
    """The tag of the state that was seen, as JSON; if the rest isn't as it was stored, something that nobody wrote."""
    return _value(found, document)


def value_stored(found: dict[str, Any] | None) -> str | None:
    """The same, of what MongoDB holds."""
    return _value(found, _stored)


def _value(found: dict[str, Any] | None, expected: Callable[[str], dict[str, Any]]) -> str | None:
    if found is None:
        return None
    rest = {name: value for name, value in found.items() if name not in ("id", "_id", "_sync", "n")}
    tag = str(rest.get("v", ""))
    if rest == {"v": tag}:  # a part of a document that wasn't there
        return tag
    wanted = expected(str(rest.get("w"))) | {"v": tag}
    for _ in range(_READ_AGAIN):
        if list(rest.items()) == list(wanted.items()):
            return tag
        wanted["x"] = read_by_redis(repr(wanted["x"]))
    return f"{tag}, but with {rest}"


def _stored(tag: str) -> dict[str, Any]:
    at, oid, price, _ = _drawn(tag)
    more = [DBRef("users", tag), ObjectId(oid), {"price": Decimal128(price)}]
    return document(tag) | {"at": at.replace(tzinfo=None), "more": more}


def _drawn(tag: str) -> tuple[datetime, str, str, float]:
    source = random.Random(tag)
    at = _EPOCH + timedelta(milliseconds=source.randrange(1, 4_000_000_000) * 1000 + source.randrange(1, 1000))
    oid = f"{source.getrandbits(96):024x}"
    return at, oid, f"{source.randrange(1, 10**6)}.{source.randrange(10)}0", source.uniform(1, 1000)
