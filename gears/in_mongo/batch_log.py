"""The log: what MongoDB knows of a mapping's latest batches, and the term. Redis may forget; this doesn't.

Each batch is written beside its documents, so that it may be there and some of them not: only what is acknowledged is
certain. See docs/protocol.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import time
from typing import Self

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ReturnDocument

from gears.contract.mapping import Mapping
from gears.contract.version import first_term, foreign, highest, version_of
from gears.contract.write_tokens import NOTHING, EntryId, Token
from gears.errors import LeaseLost
from gears.in_mongo.client import Document, database_of

MOST_LIVES = 100
"""How many lives are remembered, the latest."""

_MOST_IDS = 1024 * 1024
"""How many characters of ids are kept of a batch."""

_KEPT, _KEPT_SECONDS = 1000, 60.0
"""How many batches are kept at least, the latest, and for how long all are."""

_MOST_LOST, _MOST_LATE = 1000, 20


@dataclass(frozen=True, slots=True)
class Acked:
    """The last acknowledged batch, as Redis knows it.

    Args:
        version: the batch's.
        token: its last entry, or the last that is certain.
    """

    version: int = 0
    token: Token = NOTHING

    @classmethod
    def parse(cls, text: bytes | None) -> Self:
        """What `str` makes of one; nothing was acknowledged where Redis holds none."""
        if not text:
            return cls()
        version, token = text.decode().split(" ", 1)
        return cls(int(version), Token.parse(token))

    def __str__(self) -> str:
        return f"{self.version} {self.token}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Entries of one life, above the first id and up to the second."""

    life: str
    above: EntryId
    upto: EntryId

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` makes of one."""
        life, above, upto = text.split(" ")
        return cls(life, EntryId.parse(above), EntryId.parse(upto))

    def holds(self, token: Token) -> bool:
        """Whether an entry is among them."""
        return token.life == self.life and self.above < token.id <= self.upto

    def __str__(self) -> str:
        return f"{self.life} {self.above} {self.upto}"


@dataclass(frozen=True, slots=True)
class Logged:
    """One batch.

    Args:
        version: its version.
        upto: its last entry.
        newest: the stream's newest entry when its states were read: none of them is newer.
        certain: everything up to this entry was committed before.
        lives: of each of the latest lives, in their order, the last entry that was committed, or is with this batch.
        ids: the documents that it writes, deletes or refuses; None where these are too many to keep.
        beside: those that it may write beside, since others wait for them.
    """

    version: int
    upto: Token
    newest: Token
    certain: Token = NOTHING
    lives: Dict[str, EntryId] = field(default_factory=dict)
    ids: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()

    @classmethod
    def parse(cls, found: Document) -> Self:
        """The batch that MongoDB holds."""
        upto, newest, certain = (Token.parse(found[name]) for name in ("upto", "newest", "certain"))
        lives = {token.life: token.id for token in map(Token.parse, found["lives"])}
        ids = found.get("ids")
        return cls(int(found["v"]), upto, newest, certain, lives, None if ids is None else tuple(ids))

    @property
    def doubtful(self) -> "list[Doubt]":
        """The entries of which nobody knows whether what they tell of has come."""
        if self.certain.life not in self.lives:
            return [Doubt(life, NOTHING.id, upto) for life, upto in self.lives.items()]
        after = list(self.lives).index(self.certain.life)
        later = [Doubt(life, NOTHING.id, upto) for life, upto in list(self.lives.items())[after + 1 :]]
        return [Doubt(self.certain.life, self.certain.id, self.lives[self.certain.life]), *later]

    def document(self) -> Document:
        """What MongoDB is to hold of it."""
        few = self.ids is not None and sum(map(len, (*self.ids, *self.beside))) <= _MOST_IDS
        return {
            "v": Int64(self.version),
            "upto": str(self.upto),
            "newest": str(self.newest),
            "certain": str(self.certain),
            "lives": [str(Token(life, entry_id)) for life, entry_id in self.lives.items()],
            "at": datetime.now(UTC),
        } | ({"ids": list(self.ids), "beside": list(self.beside)} if few and self.ids is not None else {})


def going_on(lives: Dict[str, EntryId], tokens: Iterable[Token]) -> dict[str, EntryId]:
    """What is committed of the latest lives, once these entries are, which are in order."""
    found = dict(lives)
    for life, entry_id in tokens:
        found[life] = max(entry_id, found.get(life, entry_id))
    return dict(list(found.items())[-MOST_LIVES:])


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a mapping beside its batches.

    Args:
        term: the latest term that was begun.
        lives: the lives that committers have met, the latest.
        aside: entries that are set aside.
        lost: entries that were set aside, and that Redis has forgotten.
        doubtful: entries of batches that Redis has forgotten, and of which not all had come.
        late: pairs of versions, the latest: what MongoDB holds with one in between wasn't there when a committer looked
            what Redis had forgotten. It was under way then, in a life that is over.
    """

    term: int = 0
    lives: tuple[str, ...] = ()
    aside: tuple[Token, ...] = ()
    lost: tuple[Token, ...] = ()
    doubtful: tuple[Doubt, ...] = ()
    late: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, found: Document | None) -> Self:
        """What MongoDB holds."""
        if found is None:
            return cls()
        aside, lost = (tuple(map(Token.parse, found.get(name, ()))) for name in ("aside", "lost"))
        late = tuple((int(low), int(high)) for low, high in found.get("late", ()))
        doubtful = tuple(map(Doubt.parse, found.get("doubtful", ())))
        return cls(int(found["term"]), tuple(found.get("lives", ())), aside, lost, doubtful, late)

    def gave(self, version: int) -> bool:
        """Whether this mapping's committers may have given this version."""
        return version <= highest(self.term)

    def believes(self, version: int) -> bool:
        """Whether this version counts at all; else it is certainly somebody else's."""
        return version < foreign(highest(self.term))

    def is_news(self, version: int) -> bool:
        """Whether Redis knows nothing of what MongoDB holds with this version: it came late, or from elsewhere."""
        return not self.gave(version) or any(low < version < high for low, high in self.late)


class Log:
    """One mapping's log.

    Args:
        client: a client.
        mapping: the mapping.
    """

    def __init__(self, client: "AsyncIOMotorClient[Document]", mapping: Mapping) -> None:
        self._mapping = mapping
        database = database_of(client, mapping)
        self._log: AsyncIOMotorCollection[Document] = database["sync_log"]
        self._checkpoints: AsyncIOMotorCollection[Document] = database["sync_checkpoints"]
        self._head = {"_id": mapping.prefix}

    async def begin_term(self, life: str, *, above: int = 0) -> int:
        """Begin a term, in one atomic step.

        Args:
            life: the life in which this is done.
            above: a term that is to be below it.
        """
        if (await self.head()).term < above and not await self._begin_first(above):
            await self._log.update_one(self._head, {"$max": {"term": Int64(above)}})
        begun = {"$inc": {"term": Int64(1)}, "$pull": {"lives": life}}
        found = await self._log.find_one_and_update(self._head, begun, return_document=ReturnDocument.AFTER)
        if found is None:
            await self._begin_first(above)
            found = await self._log.find_one_and_update(self._head, begun, return_document=ReturnDocument.AFTER) or {}
        met = {"$push": {"lives": {"$each": [life], "$slice": -MOST_LIVES}}}
        await self._log.update_one(self._head, met)
        return int(found["term"])

    async def _begin_first(self, above: int) -> bool:
        """Whether there is a head from now on, that wasn't there before."""
        first = max(first_term(await self._before_terms(), int(time() * 1000)), above)
        made = {"$setOnInsert": {"term": Int64(first)}}
        return (await self._log.update_one(self._head, made, upsert=True)).upserted_id is not None

    async def head(self) -> Head:
        """What is known beside the batches."""
        return Head.parse(await self._log.find_one(self._head))

    async def newest(self) -> Logged | None:
        """The newest batch; None when nothing was ever committed."""
        found = await self._log.find(self._batches(), sort=[("_id", -1)], limit=1).to_list(1)
        return Logged.parse(found[0]) if found else await self._checkpoint()

    async def has(self, version: int) -> bool:
        """Whether a batch is there."""
        return await self._log.find_one({"_id": self._id(version)}, {"_id": 1}) is not None

    async def ids_above(self, version: int) -> list[str] | None:
        """The documents of all batches above this version; None where the log doesn't reach back so far."""
        if not await self.reaches_back_to(version):
            return None
        ids: dict[str, None] = {}
        async for found in self._log.find(self._batches(above=version), {"ids": 1, "beside": 1}):
            if "ids" not in found:
                return None
            ids.update(dict.fromkeys((*found["ids"], *found["beside"])))
        return list(ids)

    async def newest_ids(self) -> AsyncIterator[Sequence[str]]:
        """The documents of all batches that are kept, the newest first."""
        async for found in self._log.find(self._batches(), {"ids": 1}, sort=[("_id", -1)]):
            yield found.get("ids", ())

    async def add(self, batch: Logged) -> None:
        """Write a batch."""
        await self._log.insert_one({"_id": self._id(batch.version)} | batch.document())

    async def trim(self) -> None:
        """Forget batches that are old, and followed by many."""
        last = await self._log.find(self._batches(), {"_id": 1}, sort=[("_id", -1)], skip=_KEPT, limit=1).to_list(1)
        if last:
            old = {"_id": {"$gt": self._id(-1), "$lte": last[0]["_id"]}}
            before = datetime.now(UTC) - timedelta(seconds=_KEPT_SECONDS)
            await self._log.delete_many(old | {"at": {"$lt": before}})

    async def keep_late(self, head: Head, low: int) -> None:
        """Remember that what comes to MongoDB with a version above this one and below the present term is late.

        Args:
            head: what is known, the present term included.
            low: the version.

        Raises:
            LeaseLost: another term was begun.
        """
        late = [(one, other) for one, other in head.late if one != low]
        late.append((low, version_of(head.term, 0)))
        kept = {"$set": {"late": [[Int64(one), Int64(other)] for one, other in late[-_MOST_LATE:]]}}
        if not (await self._log.update_one(self._head | {"term": Int64(head.term)}, kept)).matched_count:
            raise LeaseLost("another committer took over")

    async def keep_doubtful(self, doubtful: Iterable[Doubt]) -> None:
        """Remember entries of which nobody knows whether what they tell of has come."""
        kept = {"$each": [str(one) for one in doubtful], "$slice": -_MOST_LOST}
        await self._log.update_one(self._head, {"$push": {"doubtful": kept}})

    async def written_at(self, version: int) -> datetime | None:
        """When a batch was written; None where it isn't kept."""
        found = await self._log.find_one({"_id": self._id(version)}, {"at": 1})
        return None if found is None else found["at"]

    async def reaches_back_to(self, version: int) -> bool:
        """Whether every batch above this version is still kept, as far as anybody can tell."""
        return await self._log.find_one(self._batches(upto=version), {"_id": 1}) is not None

    async def next_batches(self, above: int, upto: int, most: int) -> list[tuple[datetime, Logged]]:
        """The batches above the first version, and up to the second, in their order; each with when it was written.

        Args:
            above: the first version.
            upto: the second.
            most: how many, at most.
        """
        found = self._log.find(self._batches(above=above, upto=upto), sort=[("_id", 1)], limit=most)
        return [(one["at"], Logged.parse(one)) for one in await found.to_list(most)]

    async def newest_of(self) -> list[tuple[int, Token]]:
        """Of each batch that is kept, the newest entry that was there when its states were read; by version."""
        found = self._log.find(self._batches(), {"v": 1, "newest": 1}, sort=[("_id", 1)])
        return [(int(one["v"]), Token.parse(one["newest"])) async for one in found]

    async def keep_aside(self, entries: Iterable[Token], lost: Sequence[Token] = ()) -> None:
        """Remember what is set aside; Redis may forget it.

        Args:
            entries: all that is.
            lost: what was, and Redis has forgotten.
        """
        more = {"$push": {"lost": {"$each": [str(token) for token in lost], "$slice": -_MOST_LOST}}} if lost else {}
        await self._log.update_one(self._head, {"$set": {"aside": [str(token) for token in entries]}} | more)

    def _id(self, version: int) -> str:
        return f"{self._mapping.prefix} {version:016x}" if version >= 0 else f"{self._mapping.prefix} "

    def _batches(self, *, above: int = -1, upto: int | None = None) -> Document:
        """A filter by `_id`, whose index every server uses."""
        last = {"$lt": f"{self._mapping.prefix} g"} if upto is None else {"$lte": self._id(upto)}
        return {"_id": {"$gt": self._id(above)} | last}

    async def _before_terms(self) -> int:
        """The highest version of before there were terms, as far as is known."""
        found = await self._checkpoints.find_one(self._head) or {}
        return max((int(found.get(name, 0)) for name in ("v", "newest", "reserved", "fence")), default=0)

    async def _checkpoint(self) -> Logged | None:
        """What was kept in place of a log before there were terms: versions were ids."""
        found = await self._checkpoints.find_one(self._head)
        if found is None:
            return None
        committed = int(found["v"])
        newest, certain = (int(found.get(name, committed)) for name in ("newest", "certain"))
        upto, at_newest, before = (Token("", _id_of(version)) for version in (committed, newest, certain))
        return Logged(newest, upto, at_newest, before, {"": upto.id})


def _id_of(version: int) -> EntryId:
    """The entry id that was a version before there were terms."""
    return EntryId(version >> 20, version & (1 << 20) - 1)


def acked_before_terms(watermark: bytes | None) -> Acked:
    """What Redis knows to be acknowledged, as it was kept before there were terms: an entry's id, or nothing."""
    if not watermark:
        return Acked()
    entry_id = EntryId.parse(watermark)
    return Acked((entry_id.ms << 20) + entry_id.seq, Token("", entry_id))
