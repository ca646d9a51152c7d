"""What a batch of entries and the present states of their keys mean for MongoDB: pure decisions."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.entries import ARRIVALS, BACKFILL, DELETE_EVENTS, EXPIRE, FILL, RENAMED_FROM, RENAMED_TO, Entry
from gears.contract.mapping import Mapping
from gears.contract.mongo_form import encode
from gears.contract.write_tokens import Token
from gears.errors import Refused


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
        tokens: its entries, oldest first.
        last_event: the event of the newest entry.
        marked: whether one of them is a delete or a rename, so that there may be a mark.
        filled_from: when the newest is a fill, the version that Redis was given.
        names: keys that its document was renamed from, the latest first.
        home: which of them had it when it was written last.
        arrived: whether its document came from outside the mapping, where it is gone.
        document: JSON text of its document after the newest write, where it has a time to live.
    """

    key: bytes
    tokens: list[Token] = field(default_factory=list)
    last_event: str = ""
    marked: bool = False
    filled_from: int | None = None
    names: tuple[bytes, ...] = ()
    home: bytes | None = None
    arrived: bool = False
    document: bytes | None = None


def coalesce(
    entries: Iterable[Entry], known: Dict[bytes, KeyEntries] | None = None, due: Iterable[bytes] = ()
) -> dict[bytes, KeyEntries]:
    """Each key once, however many entries it has.

    Args:
        entries: in order, all with keys.
        known: what was said of keys before.
        due: those of these keys that are in the result in any case.
    """
    known = known or {}

    def begun(key: bytes) -> KeyEntries:
        return replace(known[key], tokens=list(known[key].tokens)) if key in known else KeyEntries(key)

    by_key = {key: begun(key) for key in due}
    previous: Entry | None = None
    for entry in entries:
        if entry.key not in by_key:
            by_key[entry.key] = begun(entry.key)
        found = by_key[entry.key]
        if entry.event == EXPIRE:
            found.document = entry.document
        if entry.event in (BACKFILL, EXPIRE) and found.tokens:  # tells of no write: what is known stays true
            found.tokens.append(entry.token)
            continue
        # A fill comes only when nothing else waits, or as the roll-back of what was refused before it.
        found.filled_from = (entry.filled_from or 0) if entry.event == FILL else None
        renamed = previous is not None and previous.event == RENAMED_FROM
        _follow(found, entry.event, by_key[previous.key] if previous is not None and renamed else None)
        found.tokens.append(entry.token)
        found.last_event = entry.event
        found.document = entry.document
        found.marked |= entry.event in DELETE_EVENTS | {RENAMED_TO}
        previous = entry
    return by_key


def _follow(found: KeyEntries, event: str, source: KeyEntries | None) -> None:
    """Take note of where a key's document comes from.

    Args:
        found: what is said of the key before the event.
        event: what happens to it.
        source: the key that is renamed by the entry before, if there is one.
    """
    if event == RENAMED_FROM:
        return
    if event in DELETE_EVENTS | ARRIVALS:
        found.arrived = event in ARRIVALS and (source is None or source.arrived)
    if event != RENAMED_TO or source is None:
        found.home = None
        if event in DELETE_EVENTS | {RENAMED_TO} or found.last_event in DELETE_EVENTS:
            found.names = ()  # the document is another one
        return
    names = (source.key, *source.names)
    if found.key in names:  # it is back
        names = names[names.index(found.key) + 1 :]
    home = source.home or source.key
    found.names, found.home = names, home if home in names else None


def moves(decisions: "Dict[bytes, Decision]", keys: Dict[bytes, KeyEntries]) -> dict[bytes, bytes]:
    """Keys that were renamed and not written since: the new one and the old one, where both are in the batch."""
    found: dict[bytes, bytes] = {}
    for key, entries in keys.items():
        if isinstance(decisions[key], Upsert | RefusedState | Remove):
            absent = [name for name in _way_back(entries, decisions, keys) if isinstance(decisions[name], Remove)]
            if absent:
                found[key] = absent[0]
    return found


def homes(
    refusals: "Iterable[RefusedState]", decisions: "Dict[bytes, Decision]", keys: Dict[bytes, KeyEntries]
) -> "dict[bytes, RefusedState]":
    """Where documents go back to that are refused under their new keys: former ones, absent and not written since."""
    found: dict[bytes, RefusedState] = {}
    for refusal in refusals:
        way = _way_back(refusal.entries, decisions, keys)
        if refusal.seen is not None and way and isinstance(decisions[way[-1]], Remove):
            found[way[-1]] = refusal
    return found


def _way_back(
    entries: KeyEntries, decisions: "Dict[bytes, Decision]", keys: Dict[bytes, KeyEntries]
) -> Sequence[bytes]:
    """Of a document's former keys those that are ids and were not written since, back to where it was written last."""
    known = (name for name in entries.names if decisions.get(name) is not None)
    names = [name for name in known if keys[name].last_event == RENAMED_FROM]
    return names[: names.index(entries.home) + 1] if entries.home in names else names


@dataclass(frozen=True, slots=True)
class RefusedState:
    """A state of a key that MongoDB can't hold.

    Args:
        entries: what the batch says of the key.
        reason: what is wrong.
        seen: JSON text of the refused document; None when it is lost.
        moved: whether the key is absent since it was renamed, and what it was renamed to is refused.
    """

    entries: KeyEntries
    reason: str
    seen: bytes | None
    moved: bool = False


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


Decision = Change | RefusedState | Verify | None
"""What to do about a key; None for nothing."""


def decide(mapping: Mapping, entries: KeyEntries, state: State, version: int) -> Decision:
    """What a key's present state means for MongoDB.

    Args:
        mapping: the key's mapping.
        entries: what the batch says of the key.
        state: its present state.
        version: the version of that.
    """
    if state is Gone.LOST and entries.document is not None and entries.last_event not in DELETE_EVENTS:
        state = entries.document
    seen = state if isinstance(state, bytes) else None
    try:
        document_id = mapping.id_of(entries.key)
    except Refused as refused:
        return RefusedState(entries, refused.reason, seen) if seen is not None else None
    if state is Gone.FOREIGN:
        return None
    if entries.filled_from is not None:
        return Verify(entries, document_id, seen)
    if state is Gone.LOST and entries.last_event == BACKFILL:
        return None  # gone before it could be backfilled; if by a delete, that has an entry of its own
    if state is Gone.LOST:
        return RefusedState(entries, "the key was evicted or expired before it could be committed", None)
    if seen is None:
        return Remove(document_id, version)
    try:
        encoded = encode(mapping, document_id, seen, version)
    except Refused as refused:
        return RefusedState(entries, refused.reason, seen)
    return Upsert(document_id, version, encoded.raw, encoded.has_its_id)
