"""The log: what MongoDB knows of a mapping's latest batches, and the term. Redis may forget; this doesn't.

Each batch is written beside its documents, so that it may be there and some of them not: only what is acknowledged is
certain. See docs/protocol.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from time import time

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ReturnDocument

from gears.contract.mapping import Mapping
from gears.contract.version import first_term, version_of
from gears.contract.write_tokens import Token
from gears.errors import LeaseLost
from gears.in_mongo.client import Document, database_of
from gears.in_mongo.log.batches import MOST_LIVES, Doubt, Head, Logged
from gears.in_mongo.log.before_terms import Checkpoints

_KEPT, _KEPT_SECONDS = 1000, 60.0
"""How many batches are kept at least, the latest, and for how long all are."""


_MOST_LOST, _MOST_LATE = 1000, 20


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
        self._before_terms = Checkpoints(database["sync_checkpoints"], mapping)
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
        first = max(first_term(await self._before_terms.highest_version(), int(time() * 1000)), above)
        made = {"$setOnInsert": {"term": Int64(first)}}
        return (await self._log.update_one(self._head, made, upsert=True)).upserted_id is not None

    async def head(self) -> Head:
        """What is known beside the batches."""
        return Head.parse(await self._log.find_one(self._head))

    async def newest(self) -> Logged | None:
        """The newest batch; None when nothing was ever committed."""
        found = await self._log.find(self._batches(), sort=[("_id", -1)], limit=1).to_list(1)
        return Logged.parse(found[0]) if found else await self._before_terms.newest()

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
