"""The sync stream contract: key names, tokens and the entry codec.

Everything that the recipes, the worker and the service must agree on is here.
"""

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Self

_SEQ_MAX_BITS, _MS_MAX_BITS = 32, 43

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
        if entry_id.seq >> _SEQ_MAX_BITS or entry_id.ms >> _MS_MAX_BITS:
            raise ValueError(f"{text!r} is out of range")
        return entry_id

    @property
    def next(self) -> "EntryId":
        """The lowest id of a stream entry above this one."""
        return EntryId(self.ms, self.seq + 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


ZERO = EntryId(0, 0)


class Token(NamedTuple):
    """Which entry a write has, for ever: Redis gives out an id again once it has forgotten it, but no life.

    Args:
        life: the life in which it was captured: letters and digits; empty for entries of before there were lives.
        id: the entry's id.
    """

    life: str
    id: EntryId

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse what `str` makes of one.

        Raises:
            ValueError: this is no token.
        """
        text = text.decode() if isinstance(text, bytes) else text
        life, dot, entry_id = text.rpartition(".")
        if dot and not (life.isascii() and life.isalnum()):
            raise ValueError(f"{text!r} is not of the form <life>.<milliseconds>-<sequence>")
        return cls(life, EntryId.parse(entry_id))

    def __str__(self) -> str:
        return f"{self.life}.{self.id}" if self.life else str(self.id)


NOTHING = Token("", ZERO)


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


def life_in(kept: bytes | None) -> str:
    """The life in what is kept under `Names.life`; empty when there is none."""
    return (kept or b"").decode().partition(" ")[0]


class Names:
    """The names of all that the system keeps in Redis for one key prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.stream = f"sync:{{{prefix}}}"
        self.tag = sha256(prefix.encode()).hexdigest()[:6]
        """What ends the name of each life of this mapping, so that a token tells whose it is."""
        self.life = f"{self.stream}:life"
        """String: the present life, an unbroken stretch of Redis's memory, and that memory's id; see `life_in`."""
        self.acked = f"{self.stream}:acked"
        """String: `<version> <token>`: the last acknowledged batch, and its last entry."""
        self.watermark = f"{self.stream}:watermark"
        """String: the last committed entry id, as it was kept before there were lives."""
        self.before_lives = (
            self.watermark,
            *(f"{self.stream}:{name}" for name in ("run", "gaps", "skipped", "forgotten")),
        )
        """What isn't kept any more."""
        self.lease = f"{self.stream}:lease"
        """String: the token of the committer that works on this mapping."""
        self.reconciler = f"{self.stream}:reconciler"
        """String: the token of the reconciler that works on this mapping."""
        self.reconciling = f"{self.stream}:reconciling"
        """Hash with a time to live: what the reconciler says of itself."""
        self.sweep = f"{self.stream}:sweep"
        """String: the reason why the reconciler should sweep now; set by the worker, or by hand."""
        self.checked = f"{self.stream}:checked"
        """String: the life in which a committer has made sure that nothing acknowledged was forgotten."""
        self.rewind = f"{self.stream}:rewind"
        """String: `restore`, set by hand, where a loss is reported and waits for somebody to decide."""
        self.probe = f"{self.stream}:probe"
        """A key that is set and deleted, to see whether that is told to whoever listens."""
        self.refused = f"{self.stream}:refused"
        """Sorted set: the latest refused entries, `<token> <reason>` under the id's milliseconds."""
        self.aside = f"{self.stream}:aside"
        """Hash: tokens of entries that are set aside, each with what is kept of it; see `gears.aside`."""
        self.worker = f"{self.stream}:worker"
        """Hash with a time to live: what the committer says of itself."""
        self.channel = f"{self.stream}:committed"
        """Channel: what each batch committed, published when it is acknowledged."""
        self.own = f"{self.stream}:own"
        """Channel of the engine `function`: keys whose latest keyspace event needs no entry."""
        self.gone = f"{self.stream}:gone:"
        """Prefix of strings: `<gone><key's id>` holds the entry id of the key's delete."""
        self.ticket = f"{self.stream}:ticket:"
        """Prefix of strings with a time to live: see `gears.engines.Engine.ticket`."""
        self.idempotency = f"{self.stream}:idempotency:"
        """Prefix of strings with a time to live: see `service.idempotency`."""
