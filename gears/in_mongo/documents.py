"""A mapping's documents: finding them, going through all of them, and raising their versions."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any

import bson
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import UpdateOne
from pymongo.collation import Collation
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import Stored, read_stored
from gears.in_mongo.client import Document, within
from gears.in_mongo.collection.inspect import look
from gears.in_mongo.errors.what_errors_mean import Meaning, failures_of, judge
from gears.in_mongo.version_filter import Filters

AT_ONCE = 100
"""How many documents are looked for by one query; servers that compare with each one take long for more."""

PAGE_BYTES = 16 * 1024 * 1024
"""How many bytes of documents, the last one not counted, are on a page at the most."""

RAW = CodecOptions(document_class=RawBSONDocument)
"""Documents as bytes: what JSON and `bson` make of them is for `gears.documents` to say."""

_ASK_AGAIN = 60.0
"""Seconds after which MongoDB is asked again for the collection's collation."""

_SCAN_BATCH = 1000

_SCAN_TIMEOUT = 60.0
"""Seconds until a scan's next batch; servers that sort before they answer need some for the first."""


class Documents:
    """One mapping's documents; what a late committer brought back after its delete, and will delete again, among them.

    Args:
        collection: the mapping's, with documents as bytes.
        mapping: the mapping.
        filters: its filters.
    """

    def __init__(self, collection: AsyncIOMotorCollection[Any], mapping: Mapping, filters: Filters) -> None:
        self.collection = collection
        self.mapping = mapping
        self.filters = filters
        self._ask_at = float("-inf")

    async def find(self, document_id: str) -> Stored | None:
        """The stored document with this id."""
        mine = self.filters.with_id(document_id)
        found = await self.collection.find_one(mine, collation=await self._simple())
        return next(self._read([found] if found else []), None)

    async def find_many(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Those of these documents that are stored."""
        return {stored.id: stored async for stored in self._find_some(ids, None)}

    async def stored(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids that are stored."""
        only_ids = {self.mapping.id_field: 1, "_id": self.mapping.id_field == "_id"}
        return {stored.id async for stored in self._find_some(ids, only_ids)}

    async def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions of those of these documents that are stored."""
        only_versions = {self.mapping.id_field: 1, "_sync": 1}
        return {stored.id: stored.version async for stored in self._find_some(ids, only_versions)}

    async def page(self, *, limit: int, after: str | None, seconds: float) -> tuple[list[Stored], bool]:
        """Stored documents with ids of the mapping's type above `after`, by id, and whether there are more.

        Up to `limit`, and no more once they take `PAGE_BYTES`.

        Raises:
            MongoError: MongoDB takes more seconds than that for an answer.
        """
        id_field, id_type = self.mapping.id_field, self.mapping.id_type
        above = {"$gte": id_type.lowest} if after is None else {"$gt": id_type.bound(after)}
        found: list[Stored] = []
        size = 0
        with within(seconds):
            collation = await self._simple()
        found_raw = self.collection.find_raw_batches({id_field: above}, collation=collation)
        cursor = found_raw.sort(id_field, 1).limit(limit + 1)
        try:
            while True:
                with within(seconds):
                    batch: Any = await anext(cursor, None)
                if batch is None:
                    return found, False
                for stored in self._read(bson.decode_iter(batch, RAW)):
                    if len(found) == limit or size >= PAGE_BYTES:
                        return found, True
                    found.append(stored)
                    size += len(stored.raw)
        finally:
            with suppress(PyMongoError), within(seconds):
                await cursor.close()

    async def scan(self) -> AsyncIterator[list[Stored]]:
        """All stored documents with ids of the mapping's type, by id, many at a time."""
        id_field, id_type = self.mapping.id_field, self.mapping.id_type
        above: Document = {"$gte": id_type.lowest}
        while True:
            cursor = (
                self.collection.find_raw_batches({id_field: above}, collation=await self._simple())
                .sort(id_field, 1)
                .batch_size(_SCAN_BATCH)
            )
            try:
                while True:
                    with within(_SCAN_TIMEOUT):
                        batch: Any = await anext(cursor, None)
                    if batch is None:
                        return
                    found = list(self._read(bson.decode_iter(batch, RAW)))
                    if found:
                        above = {"$gt": id_type.parse(found[-1].id)}
                        yield found
            except OperationFailure as error:
                if judge(error).meaning is not Meaning.CURSOR_GONE:
                    raise
            finally:
                await cursor.close()

    async def estimated_count(self) -> int:
        """About how many documents are stored."""
        return await self.collection.estimated_document_count()

    async def fence_off(self, versions: Dict[str, int], held: Dict[str, int]) -> None:
        """Give documents these versions, unless they are newer, as `Store.fence_off` says."""
        raised = [
            self.filters.raised({"_sync.v": Int64(held[i])} | self.filters.with_id(i), version)
            for i, version in versions.items()
            if i in held and held[i] < version
        ]
        await self._raise(raised)

    async def set_version(self, document_id: str, held: int, version: int) -> None:
        """Give a document another version, if it is still this one."""
        await self._raise([self.filters.raised(self.filters.exactly(document_id, held), version)])

    async def set_versions(self, ids: Sequence[str], held: int, version: int) -> None:
        """Give documents another version, where it is still this one; few enough for one query."""
        exactly = self.filters.all_exactly(ids, held)
        try:
            given = {"$set": {"_sync.v": Int64(version)}}
            await self.collection.update_many(exactly, given, collation=await self._simple())
        except OperationFailure as error:
            if not judge(error).refuses:  # else such documents stay as they are
                raise
            await self._raise([self.filters.raised(self.filters.exactly(i, held), version) for i in ids])

    async def _raise(self, operations: Sequence[UpdateOne]) -> None:
        try:
            if operations:
                await self.collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            if not all(judge(failure).refuses for failure in failures_of(error)):
                raise

    async def _find_some(self, ids: Iterable[str], only: Document | None) -> AsyncIterator[Stored]:
        for some in batched(ids, AT_ONCE):
            these = {self.mapping.id_field: {"$in": self.filters.values(some)}}
            for stored in self._read(
                await self.collection.find(these, only, collation=await self._simple()).to_list(None)
            ):
                yield stored

    async def _simple(self) -> Collation | None:
        """What strings are compared by, so that ids are exact, where the collection has another collation by itself.

        Asked of MongoDB from time to time: collections may be made anew.
        """
        if monotonic() > self._ask_at:
            self.filters.compare_bytes(overruling=(await look(self.collection)).collation)
            self._ask_at = monotonic() + _ASK_AGAIN
        return self.filters.collation

    def _read(self, found: Iterable[RawBSONDocument]) -> Iterator[Stored]:
        """What was found, as far as its ids are of the mapping's type."""
        return (stored for raw in found if (stored := read_stored(self.mapping, bytes(raw.raw))) is not None)


def batched(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """These ids, so many at a time."""
    remaining = iter(ids)
    while some := list(islice(remaining, size)):
        yield some
