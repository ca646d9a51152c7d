"""Documents that wait for one another in a circle: all are taken out, kept elsewhere meanwhile, and put in anew."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import structlog
from bson import Binary
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DeleteOne, ReplaceOne
from pymongo.errors import DocumentTooLarge, OperationFailure

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mongo_form import Stored, read_stored
from gears.contract.version import reaches
from gears.documents.json_bson import document_bson, elements
from gears.in_mongo.client import Document
from gears.in_mongo.documents import Documents
from gears.in_mongo.errors.describe import describe_item
from gears.in_mongo.errors.what_errors_mean import Meaning, judge
from gears.in_mongo.tombstones import Tombstones
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome, dependents
from gears.in_mongo.writing.blockers import Blockers, taken
from gears.in_mongo.writing.bulk_write import BulkWrite, in_bulk
from gears.process.failpoint import reached

log = structlog.get_logger()


class Exchange:
    """Exchanges documents of one mapping.

    Args:
        documents: the mapping's.
        parked: where documents are kept that are taken out.
        tombstones: remembers what is deleted.
        bulk: tries to write.
        blockers: finds who is in the way.
    """

    def __init__(
        self,
        documents: Documents,
        parked: AsyncIOMotorCollection[Document],
        tombstones: Tombstones,
        bulk: BulkWrite,
        blockers: Blockers,
    ) -> None:
        self._stored = documents
        self._documents = documents.collection
        self._mapping = documents.mapping
        self._filters = documents.filters
        self._parked = parked
        self._tombstones = tombstones
        self._bulk = bulk
        self._blockers = blockers

    async def exchange(
        self, changes: Sequence[Change], batch: Changes, waits: Dict[str, set[str]], outcome: Outcome
    ) -> dict[str, Document]:
        """Take these out, and put them in as they are to be, or as they were.

        What is taken out is kept elsewhere until then, so that it can be put back whoever stops amid it.

        Args:
            changes: what waits for one another.
            batch: what is to be written.
            waits: for each document's id, ids of those that hold what it needs.
            outcome: takes note of what was refused, or failed.

        Returns:
            What still waits, since another one was put back that is in its way.
        """
        found = await self._stored.find_many([change.document_id for change in changes])
        changes = [
            c for c in changes if c.document_id not in found or not reaches(found[c.document_id].version, c.version)
        ]
        ids = [change.document_id for change in changes]
        old = {i: found[i] for i in ids if i in found}
        try:
            await self._park(old)
        except DocumentTooLarge:
            outcome.failed |= dict.fromkeys(ids, "it is too large to be kept elsewhere while it is exchanged")
            return {}
        reached("parked")
        await self._take_out(old)
        reached("taken out")
        upserts = [change for change in changes if isinstance(change, Upsert)]
        ours = await self._put_in(upserts, old)
        back = dependents([*ours.refused, *ours.failed], waits)
        back = (back | batch.kept(back)) & set(ids)  # what is renamed is never nowhere
        await self._undo(upserts, old, back)
        stays = set(ids) - back
        removed = [c for c in changes if isinstance(c, Remove) and c.document_id in stays & batch.beside.keys()]
        if removed:  # those in the batch are buried with all of it
            await self._tombstones.bury(removed)
        await self._parked.delete_many({"_id": {"$in": [self._mapping.key(i) for i in stays]}})
        outcome.refused |= ours.refused
        outcome.failed |= ours.failed
        return {i: {} for i in back if i not in ours.refused and i not in ours.failed and i in waits}

    async def unpark(self) -> None:
        """Put back what was taken out by a committer that stopped amid it."""
        async for found in self._parked.find({"mapping": self._mapping.prefix}):
            await self._put_back(found["id"], found["document"])

    async def _park(self, old: Dict[str, Stored]) -> None:
        parked = [
            ReplaceOne(
                {"_id": self._mapping.key(i)},
                {"mapping": self._mapping.prefix, "id": i, "document": Binary(stored.raw)},
                upsert=True,
            )
            for i, stored in old.items()
        ]
        await in_bulk(self._parked, parked)

    async def _take_out(self, old: Dict[str, Stored]) -> None:
        deletes = [
            DeleteOne(
                self._filters.exactly(i, stored.version) if stored.version else self._filters.with_id(i),
                collation=self._filters.collation,
            )
            for i, stored in old.items()
        ]
        await in_bulk(self._documents, deletes)

    async def _put_in(self, upserts: Sequence[Upsert], old: Dict[str, Stored]) -> Outcome:
        """Put these in; what became of those that can't be."""
        documents = {upsert.document_id: self._keeping_id(upsert, old.get(upsert.document_id)) for upsert in upserts}
        ours = Outcome()
        stuck = await self._bulk.attempt(upserts, ours, documents) if upserts else {}
        in_the_way = await self._blockers.of([change for change in upserts if change.document_id in stuck])
        for i, found_there in in_the_way.items():
            if found_there:  # it was put in a moment ago
                ours.refused[i] = f"MongoDB refused it: {taken(self._mapping, found_there[0], stuck[i])}"
            else:
                ours.failed[i] = f"{describe_item(stuck[i])}; but there is none"
        return ours

    def _keeping_id(self, upsert: Upsert, old: Stored | None) -> bytes:
        """The document with the `_id` that MongoDB gave it before."""
        if self._mapping.id_field == "_id" or old is None:
            return upsert.document
        [own] = [
            b"%c_id\0%b" % (tag, old.raw[start:end]) for name, tag, start, end in elements(old.raw) if name == "_id"
        ]
        return document_bson([own, upsert.document[4:-1]])

    async def _undo(self, upserts: Sequence[Upsert], old: Dict[str, Stored], back: AbstractSet[str]) -> None:
        """Take out what was put in of these, and put back what was there."""
        gone = [
            DeleteOne(self._filters.exactly(c.document_id, c.version), collation=self._filters.collation)
            for c in upserts
            if c.document_id in back
        ]
        await in_bulk(self._documents, gone)
        for i in back & old.keys():
            await self._put_back(i, old[i].raw)

    async def _put_back(self, document_id: str, raw: bytes) -> None:
        """Put a document back, unless there is one with its id; what now has its place keeps it."""
        try:
            await self._documents.insert_one(RawBSONDocument(raw))
        except OperationFailure as error:
            if judge(error).meaning is not Meaning.DUPLICATE:
                raise
            if not await self._stored.find_many([document_id]):
                log.warning("a document could not be put back", key=self._mapping.key(document_id))
                return
        stored = read_stored(self._mapping, raw)
        if stored is not None and stored.version:  # unless it was deleted since
            await self._bulk.delete_again([Upsert(document_id, stored.version, raw)])
        await self._parked.delete_one({"_id": self._mapping.key(document_id)})
