"""The names of all that the system keeps in Redis, and how long it stays."""

from hashlib import sha256

GONE_TTL = 60
"""Seconds that the mark of a committed delete stays, far longer than any read-through takes."""


TICKET_TTL = 10
"""Seconds that a read-through may take if Redis is to be given what it read; a read of what is not there leaves one."""


def life_in(kept: bytes | None) -> str:
    """The life in what is kept under `Names.life`; empty when there is none."""
    return (kept or b"").decode().partition(" ")[0]


def life_of_memory(kept: bytes | None, replication: bytes) -> str:
    """The present life; empty when there is none, since Redis's memory isn't the one that the life is kept with.

    Args:
        kept: what is kept under `Names.life`.
        replication: what `INFO replication` says.
    """
    life, _, memory = (kept or b"").partition(b" ")
    return life.decode() if memory and b"master_replid:" + memory in replication else ""


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
        """Hash: tokens of entries that are set aside, see `gears.progress.set_aside_entries`."""
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
        """Prefix of strings with a time to live: see `service.documents.idempotency`."""
