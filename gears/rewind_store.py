"""What a rewind asks of MongoDB: what it holds that Redis has forgotten."""

from collections.abc import AsyncIterator

from bson import Int64
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from gears.checkpoint import Checkpoint
from gears.mongo import Document, Store, raise_transient
from gears.rewinds import RewindReport
from gears.stream import ZERO, EntryId

_BATCH = 100


class RewindStore(Store):
    """A `Store` for the committer, which gives Redis back what it lost."""

    async def settle(self, checkpoint: Checkpoint) -> EntryId:
        """Find out, and remember, up to which entry everything is committed; nobody may commit meanwhile.

        The checkpoint may have come without the documents. They are there if there are as many states of their
        version; else they count as not committed.
        """
        states, newest = checkpoint.states, checkpoint.newest.version
        complete = states is not None and (states == 0 or states == await self._count_at(newest))
        certain = max(checkpoint.certain, checkpoint.committed if complete else ZERO)
        found = {"$max": {"certain": Int64(certain.version)}, "$unset": {"beside": ""}}
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, found)
        return certain

    async def keep_fence(self, fence: int) -> None:
        """Remember the version that is about to be given to what Redis is given back; it may forget that it was."""
        await self._checkpoints.update_one({"_id": self.mapping.prefix}, {"$max": {"fence": Int64(fence)}})

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

    async def documents_above(self, version: int, *, fence: int) -> AsyncIterator[list[Document]]:
        """Stored documents with a higher version than this, `_id` and `_sync` included, some at a time.

        Their versions are raised to the fence before they are read: what was under way to MongoDB when Redis forgot it
        doesn't replace them any more.
        """
        id_field = self.mapping.id_field
        cursor = self._documents.find(self._above(version), {id_field: 1, "_sync": 1})
        while found := await cursor.to_list(_BATCH):
            # What was deleted since stays older than its delete.
            alive = await self._alive([document for document in found if isinstance(document.get(id_field), str)])
            these = {id_field: {"$in": [document[id_field] for document in alive], "$not": {"$type": "array"}}}
            older = {"_sync.v": {"$gt": Int64(version), "$lt": Int64(fence)}}
            raised = {"$set": {"_sync.v": Int64(fence)}}
            operations = [UpdateOne(self._with_id(document[id_field]) | older, raised) for document in alive]
            try:
                if operations:
                    await self._documents.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                raise_transient(error)  # the rest is somebody's validation of documents: those stay as they are
            yield await self._alive(await self._documents.find(these).to_list(None))

    async def deleted_above(self, version: int, *, fence: int) -> AsyncIterator[list[str]]:
        """Ids deleted at a higher version than this and not stored again since, some at a time.

        Those deletes' versions are raised to the fence, too: they are not of what Redis has forgotten any more.
        """
        cursor = self._tombstones.find(self._buried_above(version), {"v": 1})
        while found := await cursor.to_list(_BATCH):
            deleted = {tombstone["_id"][len(self.mapping.prefix) + 1 :]: tombstone["v"] for tombstone in found}
            stored = await self.versions(deleted)
            ids = [i for i, at in deleted.items() if i not in stored or 0 < stored[i] <= at]
            these = {"_id": {"$in": [self.mapping.key(i) for i in ids]}}
            older = {"v": {"$gt": Int64(version), "$lt": Int64(fence)}}
            await self._tombstones.update_many(these | older, {"$set": {"v": Int64(fence)}})
            yield ids

    async def _count_at(self, version: int) -> int:
        documents = await self._documents.count_documents({"_sync.v": Int64(version)})
        return documents + await self._tombstones.count_documents({"mapping": self.mapping.prefix, "v": Int64(version)})

    def _above(self, version: int) -> Document:
        return {"_sync.v": {"$gt": Int64(version)}}

    def _buried_above(self, version: int) -> Document:
        return {"mapping": self.mapping.prefix, "v": {"$gt": Int64(version)}}
