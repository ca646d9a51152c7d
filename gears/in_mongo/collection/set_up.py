"""Setting up: whether MongoDB can keep a mapping's documents as it is, and the indexes that it needs for that."""

from typing import Any

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorCollection

from gears.contract.mapping import Mapping
from gears.errors import Unfit
from gears.in_mongo.client import Document
from gears.in_mongo.collection.build_index import Say, say_nothing
from gears.in_mongo.collection.fitness import Collection, unfit
from gears.in_mongo.collection.id_index import ensure_unique
from gears.in_mongo.collection.inspect import look
from gears.in_mongo.collection.tidy_indexes import ensure_tidy
from gears.in_mongo.tombstones import TOMBSTONE_DAYS
from gears.in_mongo.version_filter import Filters


class SetUp:
    """Sets up one mapping's collections.

    Args:
        documents: the mapping's collection, with documents as bytes.
        tombstones: where deletes are remembered.
        dead_letters: where refused states are kept.
        mapping: the mapping.
        filters: its filters, which learn how the collection compares strings.
    """

    def __init__(
        self,
        documents: AsyncIOMotorCollection[Any],
        tombstones: "AsyncIOMotorCollection[Document]",
        dead_letters: "AsyncIOMotorCollection[Document]",
        mapping: Mapping,
        filters: Filters,
    ) -> None:
        self._documents = documents
        self._tombstones = tombstones
        self._dead_letters = dead_letters
        self._mapping = mapping
        self._filters = filters

    async def prepare(self, say: Say = say_nothing) -> Collection:
        """Look whether the collection is fit for documents, and ensure the unique index on the id.

        Args:
            say: told each second while that takes long.

        Returns:
            What was found.

        Raises:
            Unfit: somebody must mend something.
            MongoError: MongoDB can't be reached, or doesn't make the index.
        """
        found = await self.look()
        self._filters.compare_bytes(overruling=found.collation)
        reason = unfit(found, self._mapping)
        if reason is not None:
            raise Unfit(reason)
        await self.ensure_unique(say)
        return found

    async def look(self) -> Collection:
        """What is known of the mapping's collection; see `gears.in_mongo.collection.inspect.look`."""
        return await look(self._documents)

    async def ensure_unique(self, say: Say = say_nothing) -> None:
        """Ensure the unique index on the id; see `gears.in_mongo.collection.id_index.ensure_unique`."""
        await ensure_unique(self._documents, self._mapping, say)

    async def tidy(self) -> list[str]:
        """Ensure the indexes without which only space or time is lost; see `ensure_tidy`."""
        return await ensure_tidy(self._dead_letters, self._tombstones, days=TOMBSTONE_DAYS)

    async def try_write(self) -> None:
        """Have a write acknowledged as commits are, which changes nothing; raises `MongoError`."""
        nobody = {"_id": ""}  # no key is empty
        await self._tombstones.update_one(nobody, {"$set": {"v": Int64(0)}})
