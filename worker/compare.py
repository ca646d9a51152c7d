"""What one key's state in Redis and its document in MongoDB say of each other: pure decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from itertools import islice
from typing import Any

from anyio import to_thread
from bson import Int64

from gears.documents.check import parse_json
from gears.documents.faded import is_faded
from gears.documents.stored import LARGE, SLOW, Stored, plain_fields, stored_text
from gears.errors import Refused
from gears.mapping import Mapping
from gears.stream import farthest

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
    """What MongoDB holds is newer than anything that Redis knows of, or says more than Redis is able to keep."""
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


@dataclass(frozen=True, slots=True)
class Horizon:
    """Which versions the sync stream has given.

    Args:
        newest: the newest; 0 for none.
        skipped: of those up to it, not the ones above the first and up to the second of a pair.
        clock: the version that Redis's clock would give.
    """

    newest: int
    skipped: Sequence[tuple[int, int]] = ()
    clock: int = 0

    def gave(self, version: int) -> bool:
        """Whether it may have given this version."""
        return version <= self.newest and not any(low < version <= high for low, high in self.skipped)

    def above(self, version: int) -> int:
        """This version, or, where it was not given, the lowest above it that is not of those either."""
        return max((high + 1 for low, high in self.skipped if low < version <= high), default=version)

    def believes(self, version: int) -> bool:
        """Whether it may ever have given this version, be it that Redis has forgotten."""
        return version <= farthest(max(self.newest, self.clock))


def compare(
    mapping: Mapping, state: RedisState, stored: Stored | None, deleted_at: int | None, horizon: Horizon
) -> Verdict:
    """How a key's two sides compare.

    Args:
        mapping: the key's mapping.
        state: what Redis holds.
        stored: what MongoDB holds.
        deleted_at: the version of the key's tombstone.
        horizon: which versions the sync stream had given when the other three were read.
    """
    version = stored.version if stored is not None else 0
    if not horizon.believes(version):
        version = 0
    if deleted_at is not None and not horizon.believes(deleted_at):
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
        return Verdict(Kind.AHEAD if deleted_at is not None and not horizon.gave(deleted_at) else Kind.MISSING)
    fields = tuple(islice(_differing_fields(mapping, state, stored), MAX_FIELDS))
    if version > horizon.newest:  # equal or not: MongoDB would take the key's next write for an older one
        return Verdict(Kind.AHEAD, fields)
    if fields and (not horizon.gave(version) or is_faded(mapping, state, stored)):
        return Verdict(Kind.AHEAD, fields)
    return Verdict(Kind.STALE if fields else Kind.EQUAL, fields, legacy)


def looks_equal(mapping: Mapping, found: bytes | None, stored: Stored | None, newest: int) -> bool:
    """Whether a key's two sides are equal, without a proof that they are not; the fast way to `compare`'s answer.

    Args:
        mapping: the key's mapping.
        found: what JSON.MGET with the path `$` says of the key.
        stored: what MongoDB holds.
        newest: the version of an entry on the sync stream, or a later one.
    """
    if found is None or stored is None:
        return found is None and stored is None
    return found.startswith(b"[{") and stored.version <= newest and is_equal(mapping, found[1:-1], stored)


async def compared(
    mapping: Mapping, state: RedisState, stored: Stored | None, deleted_at: int | None, horizon: Horizon
) -> Verdict:
    """As `compare`, in a thread if it takes long."""
    if isinstance(state, Other) or len(state) < SLOW:
        return compare(mapping, state, stored, deleted_at, horizon)
    return await to_thread.run_sync(compare, mapping, state, stored, deleted_at, horizon)


async def look_equal(mapping: Mapping, found: bytes | None, stored: Stored | None, newest: int) -> bool:
    """As `looks_equal`, in a thread if it takes long."""
    if found is None or len(found) < SLOW:
        return looks_equal(mapping, found, stored, newest)
    return await to_thread.run_sync(looks_equal, mapping, found, stored, newest)


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
