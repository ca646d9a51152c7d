"""Entries of the sync stream: their events, and how they are read."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass

from gears.contract.write_tokens import EntryId, Token

DELETE_EVENTS = frozenset({"del", "json.del", "rename_from", "move_from"})
"""Events after which a missing key means that it was deleted, not evicted or expired."""


RENAMED_FROM, RENAMED_TO = "rename_from", "rename_to"
"""The events of a RENAME: two entries, one right after the other."""


ARRIVALS = frozenset({RENAMED_TO, "move_to"})
"""Events that bring a document from another key, or another database, where it is gone."""


FILL = "fill"
"""The event of an entry that says: Redis was given what MongoDB holds, at the version in field `v`."""


BACKFILL = "backfill"
"""The event of an entry that says: the audit found that MongoDB doesn't hold the key's present document."""


EXPIRE = "expire"
"""The event of an entry that tells of no write: it carries the document of a key that has a time to live."""


EVENTS = DELETE_EVENTS | {
    "json.set",
    "json.merge",
    "json.mset",
    "json.numincrby",
    "json.nummultby",
    "json.strappend",
    "json.arrappend",
    "json.arrinsert",
    "json.arrpop",
    "json.arrtrim",
    "json.toggle",
    "json.clear",
    "rename_to",
    "copy_to",
    "restore",
    "move_to",
}
"""The keyspace events that change a JSON document."""


CAPTURED = EVENTS | {EXPIRE}
"""The keyspace events of which there are entries."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One captured write: *that* a key changed, not what.

    Args:
        id: the entry's id.
        key: the Redis key.
        event: the keyspace event, or `FILL`, `BACKFILL`.
        filled_from: for a `FILL`, the version of the MongoDB document that Redis was given.
        life: the life in which it was captured.
        document: JSON text of the key's document, where it has a time to live.
    """

    id: EntryId
    key: bytes
    event: str
    filled_from: int | None = None
    life: str = ""
    document: bytes | None = None

    @property
    def token(self) -> Token:
        """Which entry this is."""
        return Token(self.life, self.id)


def decode_entry(entry_id: bytes, fields: Dict[bytes, bytes]) -> Entry:
    """Decode one entry as XREAD returns it; its key is empty when it says nothing about a key."""
    filled_from = fields.get(b"v")
    return Entry(
        EntryId.parse(entry_id),
        fields.get(b"k", b""),
        fields.get(b"e", b"").decode(errors="replace"),
        int(filled_from) if filled_from and filled_from.isdigit() else None,
        fields.get(b"l", b"").decode(errors="replace"),
        fields.get(b"d"),
    )
