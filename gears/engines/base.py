"""What every engine offers: a recipe that captures, and writes that are captured atomically."""

from abc import ABC, abstractmethod
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.contract.write_tokens import EntryId, Token
from gears.in_redis.client import Redis


@dataclass(frozen=True, slots=True)
class Any_:
    """Write whatever the key holds."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Write only if the key doesn't exist in Redis."""


@dataclass(frozen=True, slots=True)
class Present:
    """Write only if the key exists in Redis."""


@dataclass(frozen=True, slots=True)
class Equals:
    """Write only if `JSON.GET` of the key still returns these bytes."""

    document: bytes


Condition = Any_ | Absent | Present | Equals


@dataclass(frozen=True, slots=True)
class Written:
    """A write that Redis took and captured.

    Args:
        token: which entry it has on the sync stream.
        existed: whether the key existed before.
        document: the JSON text that Redis holds for the key now; empty after a delete.
    """

    token: Token
    existed: bool
    document: bytes


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """What an engine's recipe says of itself, for one mapping.

    Args:
        engine: the engine's name.
        installed: whether the recipe is there.
        version: the recipe's version as found in Redis; None when it isn't there.
        expected: the version this code would install.
        captured: events handled since the recipe was loaded.
        failures: events whose capture failed since then.
        last_error: the latest failure, if any.
    """

    engine: str
    installed: bool
    version: str | None
    expected: str
    captured: int = 0
    failures: int = 0
    last_error: str | None = None

    @property
    def working(self) -> bool:
        """Whether every plain write is captured now."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """Why capture isn't working, with the remedy; None when it is."""
        if not self.installed:
            return "the recipe is not installed; run: writethrough recipe install"
        if self.version != self.expected:
            return f"the recipe is version {self.version}, not {self.expected}; run: writethrough recipe install"
        if self.failures:
            return f"{self.failures} events could not be captured, the last one because of: {self.last_error}"
        return None

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"working": self.working, "problem": self.problem}


class Engine(ABC):
    """Capture for one mapping on one kind of server.

    The methods that write run as one atomic unit inside Redis. They raise:
        RedisAway: nothing was sent.
        OutcomeUnknown: the connection broke before the reply, or Redis ended the script midway.
        CaptureMissing: the recipe isn't there; nothing was written.
        RedisRefused: Redis answered with an error; nothing was written.
    """

    name: ClassVar[str]
    captures_plain_clients: ClassVar[bool] = True
    """Whether writes of plain Redis clients are captured too; if not, the worker listens for them."""

    def __init__(self, redis: Redis, mapping: Mapping) -> None:
        self.redis = redis
        self.mapping = mapping
        self.names = Names(mapping.prefix)

    @property
    @abstractmethod
    def text(self) -> str:
        """The recipe by itself, configured: once any client has sent it to Redis, it is installed."""

    @abstractmethod
    async def libraries(self) -> list[str]:
        """The names of all recipes of ours that the server has; see `gears.engines.recipe_calls.library_of`."""

    @abstractmethod
    async def install(self) -> bool:
        """Install the recipe, or replace another version. Returns whether anything had to be done."""

    @abstractmethod
    async def status(self) -> CaptureStatus:
        """How capture is doing."""

    @abstractmethod
    async def remove(self) -> bool:
        """Remove the recipe; data and stream stay. Returns whether it was there."""

    async def release(self) -> None:  # noqa: B027 most engines hold nobody
        """Answer the plain clients whose writes are committed or refused by now.

        Called after each acknowledge and every second. It never fails: whoever is not answered now is at the next call.
        """

    @abstractmethod
    async def life(self) -> str:
        """The present life, made if need be: where Redis's memory isn't the one that the recipe knows."""

    @abstractmethod
    async def backfill(self, key: bytes, event: str, *, life: str) -> bool:
        """Capture that MongoDB doesn't hold a key's present state.

        Args:
            key: the key, whether it is an id or not.
            event: `BACKFILL`, or `del` for a key that is absent.
            life: the life in which that was seen; nothing is done in another one.

        Returns:
            Whether it was captured; not while Redis may have forgotten something.
        """

    async def observe(self, events: Sequence[tuple[bytes, str]], *, token: str, life: str) -> None:
        """Capture what plain clients wrote, where `captures_plain_clients` is false.

        Args:
            events: keys, each with its latest keyspace event.
            token: the committer's; nothing is done unless its lease holds.
            life: the life in which they were told; nothing is done in another one, which may have forgotten them.

        Raises:
            LeaseLost: the lease doesn't hold.
            Rewound: it is another life.
        """
        raise NotImplementedError(f"{self.name} captures by itself: {len(events)} events")

    @abstractmethod
    async def put(self, document_id: str, document: bytes, condition: Condition, *, backlog_limit: int) -> Written:
        """Store a document and capture it.

        Raises:
            PreconditionFailed: the key isn't as `condition` asks.
            Unchecked: Redis may have forgotten how the key is, so that nothing can be said of `Absent` and `Equals`.
            BacklogFull: `backlog_limit` entries or more are uncommitted.
            ForeignKey: the key holds another type.
        """

    @abstractmethod
    async def delete(self, document_id: str, condition: Condition, *, backlog_limit: int) -> Written:
        """Delete a key and capture it, also when Redis doesn't hold it (MongoDB may); raises as `put`."""

    @abstractmethod
    async def ticket(self, document_id: str) -> bytes | None:
        """Ask, before MongoDB is read, to be let fill the key with what it holds.

        A ticket says that the key is absent and MongoDB holds the latest of what was written to it. Whatever captures a
        write to the key takes it away, and so does time. These are the leases of Nishtala et al., "Scaling Memcache at
        Facebook" (NSDI 2013), section 3.2.1: without them, what was read before a write could be filled in after it.

        Returns:
            The ticket, shared by all who ask before it is used or taken away; None when there is none to be had.
        """

    @abstractmethod
    async def fill(self, document_id: str, document: bytes, *, version: int, ticket: bytes) -> bytes | None:
        """Give Redis what MongoDB holds, for a key that is absent and not written to since the ticket was given.

        Args:
            document_id: the document's id.
            document: JSON text.
            version: the version of the MongoDB document.
            ticket: as got before MongoDB was read; it is used up.

        Returns:
            What Redis holds now, or None when it was not filled.
        """

    @abstractmethod
    async def give_back(
        self, document_id: str, document: bytes | None, *, since: EntryId, token: str, life: str
    ) -> bool:
        """Give Redis back what it lost, uncaptured; for the committer, while it commits nothing.

        Args:
            document_id: the document's id.
            document: JSON text; None to delete the key.
            since: nothing is done when the stream tells of a write to the key after this entry, or when the key holds
                another type.
            token: the committer's; nothing is done unless its lease holds.
            life: the life that it knows; nothing is done in another one.

        Returns:
            Whether it was done.

        Raises:
            LeaseLost: the lease doesn't hold.
            Rewound: it is another life.
        """

    @abstractmethod
    async def warm(self, documents: Dict[str, bytes], *, acked: str, token: str, life: str) -> int | None:
        """Give Redis what MongoDB holds and Redis doesn't, uncaptured; for a worker that leads.

        Args:
            documents: JSON texts by id, none of which was committed since MongoDB was read.
            acked: what is acknowledged, as Redis has it; nothing is done when it isn't that any more. What was written
                since and isn't committed yet is left alone: the stream tells.
            token: the committer's; nothing is done unless its lease holds.
            life: the life that it knows; nothing is done in another one.

        Returns:
            How many keys were absent and are given; None if nothing was done, and is to be tried again.

        Raises:
            LeaseLost: the lease doesn't hold.
            Rewound: it is another life.
        """

    @abstractmethod
    async def roll_back(
        self, document_id: str, seen: bytes, document: bytes | None, *, version: int | None, since: EntryId, life: str
    ) -> bool:
        """Give Redis what MongoDB holds, if the key still holds what was seen; its time to live goes on.

        Args:
            document_id: the document's id.
            seen: JSON text of the document as read by the committer.
            document: JSON text of what MongoDB holds; None for nothing.
            version: the version of what MongoDB holds, for an entry that has the committer verify it; None for none.
            since: nothing is done when the stream tells of a write to the key after this entry.
            life: the life in which that was read; nothing is done in another one.

        Returns:
            Whether it was rolled back; False when the key had been written again.
        """
