"""What a rewind asks of MongoDB: what it holds that Redis has forgotten."""

from collections.abc import AsyncIterator, Iterable, Sequence
from collections.abc import Mapping as Dict

from bson import Int64
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from gears.checkpoint import Checkpoint
from gears.dead_letters import letter_key
from gears.documents.stored import Stored
from gears.errors import LeaseLost
from gears.gaps import REMEMBERED_GAPS, Gap
from gears.mongo import Document, Store
from gears.refusals import REMEMBERED_REFUSALS
from gears.rewinds import RewindReport
from gears.stream import ZERO, EntryId, reaches

_BATCH = 100


class RewindStore(Store):
    """A `Store` for the committer, which gives Redis back what it lost."""

    async def settle(self, checkpoint: Checkpoint) -> EntryId:
        """Find out, and remember, up to which entry everything is committed; nobody may commit meanwhile.

        The checkpoint may have come without the documents. These have come if each is now as new as it was, was deleted
        since, or was refused; else they count as not committed.
        """
        complete = checkpoint.beside is not None and await self._have_come(checkpoint.beside, checkpoint)
        certain = max(checkpoint.certain, checkpoint.committed if complete else ZERO)
        found = {"$max": {"certain": Int64(certain.version)}, "$unset": {"beside": ""}}
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, found)
        return certain

    async def begin_epoch(self) -> Checkpoint:
        """Keep earlier committers from reserving any more; returns how far MongoDB is.

        What they have under way, should it arrive later, is no newer than what is reserved there.
        """
        begun = {"$inc": {"epoch": 1}, "$setOnInsert": {"v": Int64(0)}}
        mine, after = {"_id": self.mapping.prefix}, ReturnDocument.AFTER
        found = await self._checkpoints.find_one_and_update(mine, begun, upsert=True, return_document=after)
        return Checkpoint.parse(found)

    async def reserve(self, upto: EntryId, epoch: int) -> None:
        """Reserve versions up to this entry's for what is about to be written.

        Args:
            upto: the entry.
            epoch: the one in which that was read.

        Raises:
            LeaseLost: Redis has forgotten something since, and another committer is at work.
            MongoError: do it again.
        """
        mine = {"_id": self.mapping.prefix, "epoch": epoch or {"$exists": False}}
        raised = {"$max": {"reserved": Int64(upto.version)}, "$setOnInsert": {"v": Int64(0)}}
        try:
            await self._checkpoints.update_one(mine, raised, upsert=True)
        except DuplicateKeyError as error:
            raise LeaseLost("another committer took over") from error

    async def keep_fence(self, fence: int) -> None:
        """Remember the version that is about to be given to what Redis is given back; it may forget that it was."""
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, {"$max": {"fence": Int64(fence)}})

    async def keep_gaps(self, gaps: Iterable[Gap]) -> None:
        """Remember what was lost, the latest; Redis may forget it."""
        latest = {"$each": [str(gap) for gap in gaps], "$slice": -REMEMBERED_GAPS}
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, {"$push": {"gaps": latest}})

    async def keep_aside(self, entries: Iterable[EntryId]) -> None:
        """Remember what is set aside; Redis may forget it."""
        kept = {"$set": {"aside": [str(entry_id) for entry_id in entries]}}
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, kept)

    async def count_above(self, version: int) -> tuple[int, int]:
        """How many documents, and how many tombstones, have a higher version than this."""
        documents = await self._documents.count_documents(self._above(version))
        return documents, await self._tombstones.count_documents(self._buried_above(version))

    async def keep_rewind(self, report: RewindReport) -> None:
        """Keep this report; a rewind between the same two entries is the same one."""
        found = {"_id": f"{report.mapping} {report.watermark} {report.checkpoint}"}
        seen = {"found_at": report.found_at}
        known = report.model_dump(exclude={"found_at"})
        await self._rewinds.update_one(found, {"$setOnInsert": seen, "$set": known}, upsert=True)

    async def refused_above(self, version: int) -> list[tuple[EntryId, str]]:
        """The latest refused entries of states with a higher version than this, each with the reason."""
        above = {"mapping": self.mapping.prefix, "version": {"$gt": Int64(version)}}
        latest: list[tuple[EntryId, str]] = []
        async for letter in self._dead_letters.find(above, {"entries": 1, "reason": 1}).sort("version", -1):
            latest += [(EntryId.parse(entry_id), letter["reason"]) for entry_id in letter.get("entries", ())]
            if len(latest) >= REMEMBERED_REFUSALS:
                break
        return latest

    async def documents_above(
        self, version: int, *, fence: int, waiting: Dict[str, int]
    ) -> AsyncIterator[list[Stored]]:
        """Stored documents with a higher version than this, some at a time.

        Their versions are raised to the fence before they are read: what was under way to MongoDB when Redis forgot it
        doesn't replace them any more. Not those that are older than an entry that waits on the stream.
        """
        id_field = self.mapping.id_field
        cursor = self._documents.find(self._above(version), {id_field: 1, "_sync": 1})
        while found := await cursor.to_list(_BATCH):
            # What was deleted since stays older than its delete.
            alive = await self._alive(one for one in self._read(found) if one.version >= waiting.get(one.id, 0))
            ids = [one.id for one in alive]
            older = {"_sync.v": {"$gt": Int64(version), "$lt": Int64(fence)}}
            await self._raise_versions([self._filters.raised(self._filters.with_id(i) | older, fence) for i in ids])
            these = {id_field: {"$in": self._filters.values(ids), "$not": {"$type": "array"}}}
            yield await self._alive(
                self._read(await self._documents.find(these, collation=await self.simple()).to_list(None))
            )

    async def deleted_above(self, version: int, *, fence: int, waiting: Dict[str, int]) -> AsyncIterator[list[str]]:
        """Ids deleted at a higher version than this and not stored again since, some at a time.

        Those deletes' versions are raised to the fence, too: they are not of what Redis has forgotten any more.
        """
        cursor = self._tombstones.find(self._buried_above(version), {"v": 1})
        while found := await cursor.to_list(_BATCH):
            deleted = {tombstone["_id"][len(self.mapping.prefix) + 1 :]: tombstone["v"] for tombstone in found}
            stored = await self.versions(deleted)
            gone = [i for i, at in deleted.items() if i not in stored or 0 < stored[i] <= at]
            ids = [i for i in gone if deleted[i] >= waiting.get(i, 0)]
            these = {"_id": {"$in": [self.mapping.key(i) for i in ids]}}
            older = {"v": {"$gt": Int64(version), "$lt": Int64(fence)}}
            await self._tombstones.update_many(these | older, {"$set": {"v": Int64(fence)}})
            yield ids

    async def _have_come(self, ids: Sequence[str], checkpoint: Checkpoint) -> bool:
        missing = set(ids)
        for held in (await self.versions(missing), await self.deleted(missing)):
            missing -= {document_id for document_id, at in held.items() if reaches(at, checkpoint.newest.version)}
        keys = [letter_key(self.mapping.key(document_id).encode()) for document_id in missing]
        letters = {"mapping": self.mapping.prefix, "version": {"$gt": Int64(checkpoint.certain.version)}}
        refused = self._dead_letters.find(letters | {"key": {"$in": keys}}, {"key": 1})
        return set(keys) == {letter["key"] async for letter in refused}

    def _above(self, version: int) -> Document:
        return {"_sync.v": {"$gt": Int64(version)}}

    def _buried_above(self, version: int) -> Document:
        return {"mapping": self.mapping.prefix, "v": {"$gt": Int64(version)}}
