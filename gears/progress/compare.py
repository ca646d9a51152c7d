"""What one key's state in Redis and its document in MongoDB say of each other: pure decisions."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from itertools import islice
from typing import Any

from anyio import to_thread
from bson import Int64

from gears.contract.lost_in_redis import is_faded
from gears.contract.mapping import Mapping
from gears.contract.mongo_form import LARGE, SLOW, Stored, plain_fields, stored_text
from gears.documents.validate import parse_json
from gears.errors import Refused
from gears.in_mongo.log.batches import Head

MAX_FIELDS = 5
"""How many differing fields a verdict names."""


class Other(Enum):
    """What Redis holds under a key, if no JSON document."""

    ABSENT = auto()
    """Nothing."""
    FOREIGN = auto()
    """Another type."""


RedisState = bytes | Other
"""JSON text, or why there is none."""


class Kind(StrEnum):
    """How the two sides of a key compare."""

    EQUAL = auto()
    MISSING = auto()
    """Redis holds a document that MongoDB doesn't."""
    STALE = auto()
    """What MongoDB holds is older than what Redis holds; also a document that was deleted and is back."""
    AHEAD = auto()
    """What MongoDB holds is news to Redis: it came late, or from elsewhere; or it says more than Redis could keep."""
    COLD = auto()
    """In MongoDB, not in Redis, not deleted: evicted or expired."""
    FOREIGN = auto()
    """Redis holds another type, or JSON that isn't an object."""


DRIFT = frozenset({Kind.MISSING, Kind.STALE, Kind.AHEAD})
"""The kinds that are repaired."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a key's two sides compare.

    Args:
        kind: None when neither side holds anything.
        fields: dotted names of fields that differ, at most `MAX_FIELDS`.
        legacy: MongoDB's document carries no version, or an impossible one: it was never committed by us.
    """

    kind: Kind | None
    fields: tuple[str, ...] = ()
    legacy: bool = False


def compare(mapping: Mapping, state: RedisState, stored: Stored | None, deleted_at: int | None, head: Head) -> Verdict:
    """How a key's two sides compare.

    Args:
        mapping: the key's mapping.
        state: what Redis holds.
        stored: what MongoDB holds.
        deleted_at: the version of the key's tombstone.
        head: tells which versions are ours, as it was after the other three were read.
    """
    version = stored.version if stored is not None else 0
    if not head.believes(version):
        version = 0
    if deleted_at is not None and not head.believes(deleted_at):
        deleted_at = None
    legacy = stored is not None and version == 0
    if state is Other.ABSENT:
        if stored is None:
            return Verdict(None)
        back = deleted_at is not None and not legacy and deleted_at >= version
        return Verdict(Kind.STALE if back else Kind.COLD, legacy=legacy)
    if isinstance(state, Other) or not state.startswith(b"{"):
        return Verdict(Kind.FOREIGN, legacy=legacy)
    if stored is None:
        return Verdict(Kind.AHEAD if deleted_at is not None and head.is_news(deleted_at) else Kind.MISSING)
    fields = tuple(islice(_differing_fields(mapping, state, stored), MAX_FIELDS))
    if fields and (head.is_news(version) or is_faded(mapping, state, stored)):
        return Verdict(Kind.AHEAD, fields)
    return Verdict(Kind.STALE if fields else Kind.EQUAL, fields, legacy)


def looks_equal(mapping: Mapping, found: bytes | None, stored: Stored | None) -> bool:
    """Whether a key's two sides are equal, without a proof that they are not; the fast way to `compare`'s answer.

    Args:
        mapping: the key's mapping.
        found: what JSON.MGET with the path `$` says of the key.
        stored: what MongoDB holds.
    """
    if found is None or stored is None:
        return found is None and stored is None
    return found.startswith(b"[{") and is_equal(mapping, found[1:-1], stored)


async def compared(
    mapping: Mapping, state: RedisState, stored: Stored | None, deleted_at: int | None, head: Head
) -> Verdict:
    """As `compare`, in a thread if it takes long."""
    if isinstance(state, Other) or len(state) < SLOW:
        return compare(mapping, state, stored, deleted_at, head)
    return await to_thread.run_sync(compare, mapping, state, stored, deleted_at, head)


async def look_equal(mapping: Mapping, found: bytes | None, stored: Stored | None) -> bool:
    """As `looks_equal`, in a thread if it takes long."""
    if found is None or len(found) < SLOW:
        return looks_equal(mapping, found, stored)
    return await to_thread.run_sync(looks_equal, mapping, found, stored)


def is_equal(mapping: Mapping, text: bytes, stored: Stored) -> bool:
    """Whether MongoDB's document is what this JSON text says: value by value, name by name in their order, id included.

    The text is as RedisJSON prints it.
    """
    if stored.fields is not None and len(text) < SLOW:
        try:
            document = parse_json(text)
        except Refused:
            return False
        if _same(document, plain_fields(mapping, stored.fields)):
            return True
    return text == stored_text(mapping, stored)


def _differing_fields(mapping: Mapping, text: bytes, stored: Stored) -> Iterator[str]:
    if is_equal(mapping, text, stored):
        return
    if max(len(text), len(stored.raw)) >= LARGE:
        yield "(somewhere in a large document)"
        return
    try:
        document, held = parse_json(text), parse_json(stored_text(mapping, stored))
    except Refused:
        yield "(not comparable)"
        return
    differences = list(islice(_differences(document, held, ""), MAX_FIELDS))
    yield from differences or ["(the order of fields)"]


def _same(one: Any, other: Any) -> bool:
    """Whether parsed JSON and a decoded document are the same for certain: nothing in them is of a type JSON lacks."""
    kind = type(one)
    if kind is dict:
        if type(other) is not dict or len(one) != len(other):
            return False
        for name, its_name in zip(one, other, strict=True):  # the audit's innermost loop
            if name != its_name or name.startswith("$") or not _same(one[name], other[name]):
                return False
        return True
    if kind is list:
        return type(other) is list and len(one) == len(other) and all(map(_same, one, other))
    if kind is int:
        return bool(one == other) and type(other) in (int, Int64)
    return type(other) is kind and bool(one == other) and (kind is not float or one != 0.0 or str(one) == str(other))


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            below = f"{path}.{name}" if path else name
            if name in one and name in other:
                yield from _differences(one[name], other[name], below)
            else:
                yield below
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(left, right, f"{path}.{i}")
    elif not _same(one, other):
        yield path
