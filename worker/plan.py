"""What a batch of entries and the present states of their keys mean for MongoDB: pure decisions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from gears.documents.stored import encode
from gears.errors import Refused
from gears.mapping import Mapping
from gears.mongo import Change, Remove, Upsert
from gears.stream import BACKFILL, DELETE_EVENTS, FILL, ZERO, Entry, EntryId


class Gone(Enum):
    """Why a key has no document."""

    DELETED = auto()
    """It was deleted or renamed away."""
    LOST = auto()
    """It was evicted or it expired before it was committed."""
    FOREIGN = auto()
    """It holds another type now."""


State = bytes | Gone
"""A key's present state: the JSON text of its document, or why there is none."""


@dataclass(slots=True)
class KeyEntries:
    """What a batch says of one key.

    Args:
        key: the Redis key.
        ids: its entries, oldest first.
        last_event: the event of the newest entry.
        marked: whether one of them is a delete, so that there may be a mark of it.
        as_of: the newest entry of the stream when the key's state was read; that state may be newer than `ids` tell.
        filled_from: when the newest is a fill, the version that Redis was given.
    """

    key: bytes
    ids: list[EntryId] = field(default_factory=list)
    last_event: str = ""
    marked: bool = False
    as_of: EntryId = ZERO
    filled_from: int | None = None

    @property
    def version(self) -> int:
        """The version of the state that was read."""
        return max(self.as_of, self.ids[-1]).version


def coalesce(entries: Iterable[Entry]) -> dict[bytes, KeyEntries]:
    """Each key once, however many entries it has."""
    by_key: dict[bytes, KeyEntries] = {}
    for entry in entries:
        known = by_key.setdefault(entry.key, KeyEntries(entry.key))
        if entry.event == BACKFILL and known.ids:  # tells of no write: what is known stays true
            known.ids.append(entry.id)
            continue
        # A fill comes only when nothing else waits, or as the roll-back of what was refused before it.
        known.filled_from = (entry.filled_from or 0) if entry.event == FILL else None
        known.ids.append(entry.id)
        known.last_event = entry.event
        known.marked |= entry.event in DELETE_EVENTS
    return by_key


@dataclass(frozen=True, slots=True)
class Refusal:
    """A state of a key that MongoDB can't hold.

    Args:
        entries: what the batch says of the key.
        reason: what is wrong.
        seen: JSON text of the refused document; None when it is lost.
    """

    entries: KeyEntries
    reason: str
    seen: bytes | None


@dataclass(frozen=True, slots=True)
class Verify:
    """Redis was given what MongoDB held at a version: see whether MongoDB still holds that.

    Args:
        entries: what the batch says of the key.
        document_id: the document's id.
        seen: JSON text of the document; None when there is none.
    """

    entries: KeyEntries
    document_id: str
    seen: bytes | None


Decision = Change | Refusal | Verify | None
"""What to do about a key; None for nothing."""


def decide(mapping: Mapping, entries: KeyEntries, state: State) -> Decision:
    """What a key's present state means for MongoDB."""
    seen = state if isinstance(state, bytes) else None
    try:
        document_id = mapping.id_of(entries.key)
    except Refused as refused:
        return Refusal(entries, refused.reason, seen) if seen is not None else None
    if state is Gone.FOREIGN:
        return None
    if entries.filled_from is not None:
        return Verify(entries, document_id, seen)
    if state is Gone.LOST and entries.last_event == BACKFILL:
        return None  # gone before it could be backfilled; if by a delete, that has an entry of its own
    if state is Gone.LOST:
        return Refusal(entries, "the key was evicted or expired before it could be committed", None)
    if seen is None:
        return Remove(document_id, entries.version)
    try:
        encoded = encode(mapping, document_id, seen, entries.version)
    except Refused as refused:
        return Refusal(entries, refused.reason, seen)
    return Upsert(document_id, entries.version, encoded.raw, encoded.has_its_id)
