"""The sync stream contract: key names, the entry codec and versions.

Everything that the recipes, the worker and the service must agree on is here.
"""

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import NamedTuple, Self

SEQ_BITS = 20
"""A version is `(ms << SEQ_BITS) + seq`: a million entries a millisecond, and room until the year 2248.

Redis numbers on under one millisecond while a script runs or after its clock was set back; what goes beyond a million
is carried into the milliseconds that pass meanwhile.
"""

_SEQ_MAX_BITS = 32

GONE_TTL = 60
"""Seconds that the mark of a committed delete stays, far longer than any read-through takes."""

TICKET_TTL = 10
"""Seconds that a read-through may take if Redis is to be given what it read; a read of what is not there leaves one."""

DELETE_EVENTS = frozenset({"del", "json.del", "rename_from", "move_from"})
"""Events after which a missing key means that it was deleted, not evicted or expired."""

RENAMED_FROM, RENAMED_TO = "rename_from", "rename_to"
"""The events of a RENAME: two entries, one right after the other."""

FILL = "fill"
"""The event of an entry that says: Redis was given what MongoDB holds, at the version in field `v`."""

REWIND = "rewind"
"""The event of an entry that tells of no key: it moves the stream on after Redis lost some of it, or ends a rewind."""

BACKFILL = "backfill"
"""The event of an entry that says: the audit found that MongoDB doesn't hold the key's present document."""

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


class EntryId(NamedTuple):
    """The id of a sync stream entry, ordered as Redis orders them."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse `ms-seq`.

        Raises:
            ValueError: this is no entry id.
        """
        text = text.decode() if isinstance(text, bytes) else text
        ms, separator, seq = text.partition("-")
        if not (separator and ms.isascii() and ms.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"{text!r} is not of the form <milliseconds>-<sequence>")
        entry_id = cls(int(ms), int(seq))
        if entry_id.seq >> _SEQ_MAX_BITS or entry_id.version >> 63:
            raise ValueError(f"{text!r} is out of range")
        return entry_id

    @classmethod
    def of_version(cls, version: int) -> Self:
        """An entry id that has this version."""
        return cls(version >> SEQ_BITS, version & ((1 << SEQ_BITS) - 1))

    @property
    def version(self) -> int:
        """The id as one int64, as kept in MongoDB under `_sync.v`."""
        return (self.ms << SEQ_BITS) + self.seq

    @property
    def next(self) -> "EntryId":
        """The lowest id of a stream entry above this one."""
        return EntryId(self.ms, self.seq + 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


ZERO = EntryId(0, 0)


def farthest(version: int) -> int:
    """The highest version in MongoDB that is taken for ours when this one is the newest that we know of.

    What is above was written by somebody else. The stream is moved on above what MongoDB holds; so that no number found
    there can use up the ids, that takes half of those that are left at most: up to the year 2137 as of 2026.
    """
    return (version + (1 << 63)) // 2


def reaches(held: int, version: int) -> bool:
    """Whether what MongoDB holds is at or above a version, and ours."""
    return version <= held <= farthest(version)


@dataclass(frozen=True, slots=True)
class Entry:
    """One captured write: *that* a key changed, not what.

    Args:
        id: the entry's id; its version orders states of a key.
        key: the Redis key.
        event: the keyspace event, or `FILL`.
        filled_from: for a `FILL`, the version of the MongoDB document that Redis was given.
        run: the run of the Redis server that added it; see `gears.redis.server_run`.
    """

    id: EntryId
    key: bytes
    event: str
    filled_from: int | None = None
    run: bytes = b""


def decode_entry(entry_id: bytes, fields: Dict[bytes, bytes]) -> Entry:
    """Decode one entry as XREAD returns it; its key is empty when it says nothing about a key."""
    filled_from = fields.get(b"v")
    return Entry(
        EntryId.parse(entry_id),
        fields.get(b"k", b""),
        fields.get(b"e", b"").decode(errors="replace"),
        int(filled_from) if filled_from and filled_from.isdigit() else None,
        fields.get(b"r", b""),
    )


class Names:
    """The names of all that the system keeps in Redis for one key prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.stream = f"sync:{{{prefix}}}"
        self.watermark = f"{self.stream}:watermark"
        """String: the last committed entry id."""
        self.lease = f"{self.stream}:lease"
        """String: the token of the committer that works on this mapping."""
        self.reconciler = f"{self.stream}:reconciler"
        """String: the token of the reconciler that works on this mapping."""
        self.reconciling = f"{self.stream}:reconciling"
        """Hash with a time to live: what the reconciler says of itself."""
        self.sweep = f"{self.stream}:sweep"
        """String: the reason why the reconciler should sweep now; set by the worker, or by hand."""
        self.run = f"{self.stream}:run"
        """String: the server run that captured the last committed entry."""
        self.checked = f"{self.stream}:checked"
        """String: the server run at which a committer has last made sure that Redis had forgotten nothing."""
        self.gaps = f"{self.stream}:gaps"
        """List: the latest gaps in what was committed, `<entry id> <entry id>`; see `gears.gaps`."""
        self.skipped = f"{self.stream}:skipped"
        """String: pairs of entry ids, while a repair goes on: from the first to the second the stream was moved on,
        above what MongoDB turned out to hold, so that no write here ever got one in between."""
        self.forgotten = f"{self.stream}:forgotten"
        """List: the latest restarts, `<entry id> <entry id> <server run>`: what MongoDB holds with a version above the
        first and up to the second is of what Redis has forgotten, and arrived after Redis was given back the rest."""
        self.rewind = f"{self.stream}:rewind"
        """String: `restore`, set by hand, where a rewind is reported and waits for somebody to decide."""
        self.probe = f"{self.stream}:probe"
        """A key that is set and deleted, to see whether that is told to whoever listens."""
        self.refused = f"{self.stream}:refused"
        """Sorted set: the latest refused entries, `<entry id> <reason>` under the id's milliseconds."""
        self.aside = f"{self.stream}:aside"
        """Hash: entries that are set aside, each with `<event> <key>`; see `gears.aside`."""
        self.worker = f"{self.stream}:worker"
        """Hash with a time to live: what the committer says of itself."""
        self.channel = f"{self.stream}:committed"
        """Channel: watermark and refusals, published at each commit."""
        self.own = f"{self.stream}:own"
        """Channel of the engine `function`: keys whose latest keyspace event needs no entry."""
        self.gone = f"{self.stream}:gone:"
        """Prefix of strings: `<gone><key's id>` holds the entry id of the key's delete."""
        self.ticket = f"{self.stream}:ticket:"
        """Prefix of strings with a time to live: see `gears.engines.Engine.ticket`."""
