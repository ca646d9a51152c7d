"""Tombstones: the deletes of a mapping's documents, remembered so that nothing older brings a document back."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from datetime import UTC, datetime

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import UpdateOne

from gears.contract.changes import Remove
from gears.contract.mapping import Mapping
from gears.in_mongo.client import Document
from gears.in_mongo.documents import AT_ONCE, batched

TOMBSTONE_DAYS = 30
"""How long deletes are remembered; Redis restored from an older snapshot than that may bring them back."""


class Tombstones:
    """One mapping's tombstones.

    Args:
        collection: where they are kept.
        mapping: the mapping.
    """

    def __init__(self, collection: "AsyncIOMotorCollection[Document]", mapping: Mapping) -> None:
        self._collection = collection
        self._mapping = mapping

    async def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions at which those of these documents that were ever deleted were deleted last."""
        keys = {self._mapping.key(document_id): document_id for document_id in ids}
        return {
            keys[found["_id"]]: int(found["v"])
            for some in batched(keys, AT_ONCE)
            async for found in self._collection.find({"_id": {"$in": some}}, {"v": 1})
        }

    async def last_delete(self, document_id: str) -> tuple[int, datetime] | None:
        """The version at which a document was deleted last, and when; None if it never was."""
        found = await self._collection.find_one({"_id": self._mapping.key(document_id)})
        return None if found is None else (int(found["v"]), found["at"])

    async def bury(self, removed: Sequence[Remove]) -> None:
        """Remember that these documents are deleted."""
        now = datetime.now(UTC)
        await self._collection.bulk_write([self._tombstone(change, now) for change in removed], ordered=False)

    async def fence_off(self, versions: Dict[str, int], held: Dict[str, int]) -> None:
        """Bury what nothing is held of, and raise the versions of deletes, as `Store.fence_off` says."""
        operations = []
        for document_id, version in versions.items():
            if document_id not in held:
                operations.append(self._tombstone(Remove(document_id, version), datetime.now(UTC)))
            elif held[document_id] < version:
                one, other = Int64(held[document_id]), Int64(version)
                operations.append(UpdateOne({"_id": self._mapping.key(document_id), "v": one}, {"$set": {"v": other}}))
        if operations:
            await self._collection.bulk_write(operations, ordered=False)

    async def keep_below(self, document_id: str, version: int, *, held: int) -> None:
        """Have a delete stay older than this version of a document, whose version was this one until now."""
        older = {"_id": self._mapping.key(document_id), "v": {"$gte": Int64(version), "$lt": Int64(held)}}
        await self._collection.update_one(older, {"$set": {"v": Int64(version - 1)}})

    async def set_versions(self, ids: Iterable[str], held: int, version: int) -> None:
        """Give deletes another version, where it is still this one."""
        buried = {"_id": {"$in": [self._mapping.key(i) for i in ids]}, "v": Int64(held)}
        await self._collection.update_many(buried, {"$set": {"v": Int64(version)}})

    def _tombstone(self, change: Remove, now: datetime) -> UpdateOne:
        update = {"$max": {"v": Int64(change.version)}, "$set": {"mapping": self._mapping.prefix, "at": now}}
        return UpdateOne({"_id": self._mapping.key(change.document_id)}, update, upsert=True)
