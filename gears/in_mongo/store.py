"""The one place that talks to MongoDB (Motor today).

Beside a mapping's own collection, its database holds six of ours: `sync_tombstones`, `sync_log`, `sync_dead_letters`,
`sync_audits`, `sync_rewinds` and `sync_parked`.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import anyio
import bson
import pymongo
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import ReadPreference, UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from gears.contract.changes import Change, Remove
from gears.contract.errors import Unfit
from gears.contract.mapping import Mapping
from gears.contract.version import reaches
from gears.documents.mongo_form import Stored, read_stored
from gears.in_mongo.batch_log import Log, Logged
from gears.in_mongo.bulk_write import AT_ONCE, Writer
from gears.in_mongo.client import Document, within
from gears.in_mongo.collection.build_index import Say, say_nothing
from gears.in_mongo.collection.fitness import SIMPLE, Collection, unfit
from gears.in_mongo.collection.id_index import ensure_unique
from gears.in_mongo.collection.inspect import look
from gears.in_mongo.collection.tidy_indexes import ensure_tidy
from gears.in_mongo.dead_letters import DeadLetter, keep, letter_key
from gears.in_mongo.errors.what_codes_mean import Meaning, meaning_of
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome
from gears.in_mongo.version_filter import Filters
from gears.process.failpoint import reached
from gears.progress.audit_report import AuditReport
from gears.progress.given_back import RewindReport, Rewinds

ACKNOWLEDGED = WriteConcern("majority", j=True)


_ASK_AGAIN = 60.0
"""Seconds after which MongoDB is asked again for the collection's collation."""


TOMBSTONE_DAYS = 30
"""How long deletes are remembered; Redis restored from an older snapshot than that may bring them back."""


PAGE_BYTES = 16 * 1024 * 1024
"""How many bytes of documents, the last one not counted, are on a page at the most."""


RAW = CodecOptions(document_class=RawBSONDocument)
"""Documents as bytes: what JSON and `bson` make of them is for `gears.documents` to say."""


class Store:
    """One mapping's documents in MongoDB, and what the system keeps beside them."""

    def __init__(self, client: "AsyncIOMotorClient[Document]", mapping: Mapping) -> None:
        self.mapping = mapping
        database = client.get_database(
            mapping.database,
            write_concern=ACKNOWLEDGED,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._documents: AsyncIOMotorCollection[Any] = database[mapping.collection].with_options(RAW)
        self._tombstones: AsyncIOMotorCollection[Document] = database["sync_tombstones"]
        self.log = Log(client, mapping)
        self._dead_letters: AsyncIOMotorCollection[Document] = database["sync_dead_letters"]
        self._audits: AsyncIOMotorCollection[Document] = database["sync_audits"]
        self._rewinds: AsyncIOMotorCollection[Document] = database["sync_rewinds"]
        self._filters = Filters(mapping)
        self._ask_at = float("-inf")
        self._writer = Writer(
            self._documents,
            database["sync_parked"],
            mapping,
            self._filters,
            self.versions,
            self._bury,
            self._delete_again,
            self.log.head,
        )

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
        self._filters.collation = pymongo.collation.Collation(**SIMPLE) if found.collation else None
        reason = unfit(found, self.mapping)
        if reason is not None:
            raise Unfit(reason)
        await self.ensure_unique(say)
        return found

    async def look(self) -> Collection:
        """What is known of the mapping's collection; see `gears.in_mongo.collection.inspect.look`."""
        return await look(self._documents)

    async def ensure_unique(self, say: Say = say_nothing) -> None:
        """Ensure the unique index on the id; see `gears.in_mongo.collection.id_index.ensure_unique`."""
        await ensure_unique(self._documents, self.mapping, say)

    async def tidy(self) -> list[str]:
        """Ensure the indexes without which only space or time is lost."""
        return await ensure_tidy(self._dead_letters, self._tombstones, days=TOMBSTONE_DAYS)

    async def try_write(self) -> None:
        """Have a write acknowledged as commits are, which changes nothing; raises `MongoError`."""
        nobody = {"_id": ""}  # no key is empty
        await self._tombstones.update_one(nobody, {"$set": {"v": Int64(0)}})

    async def simple(self) -> pymongo.collation.Collation | None:
        """What strings are compared by, so that ids are exact, where the collection has another collation by itself.

        Asked of MongoDB from time to time: collections may be made anew.
        """
        if monotonic() > self._ask_at:
            found = await self.look()
            self._filters.collation = pymongo.collation.Collation(**SIMPLE) if found.collation else None
            self._ask_at = monotonic() + _ASK_AGAIN
        return self._filters.collation

    async def find(self, document_id: str) -> Stored | None:
        """The stored document with this id; None also if it was deleted since."""
        found = await self._documents.find_one(self._filters.with_id(document_id), collation=await self.simple())
        return next(iter(await self._alive(self._read([found] if found else []))), None)

    async def exists(self, document_id: str) -> bool:
        """Whether a document with this id is stored."""
        mine = self._filters.with_id(document_id)
        return await self._documents.find_one(mine, {"_id": 1}, collation=await self.simple()) is not None

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
            collation = await self.simple()
        found_raw = self._documents.find_raw_batches({id_field: above}, collation=collation)
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

    async def commit(self, changes: Changes, batch: Logged) -> Outcome:
        """Bring MongoDB to these states, newer ones excepted, and write the batch into the log.

        Tombstones first, so that a delete is never done without being remembered; then the documents, and the
        batch at the same time. To do it again, read the states again and give them a higher version.

        Args:
            changes: what to write.
            batch: which batch this is.

        Returns:
            What became of it; what that doesn't name is durable on a majority.

        Raises:
            MongoError: nothing is certain; do it again.
        """
        sources = changes.sources
        removed = [c for i, c in changes.changes.items() if isinstance(c, Remove) and i not in sources]
        if removed:
            await self._bury(removed)
        reached("tombstones written")
        outcomes: list[Outcome] = []
        failures: list[PyMongoError] = []

        async def write_documents() -> None:
            try:
                outcomes.append(await self._writer.write(changes))
            except PyMongoError as error:
                failures.append(error)

        async def write_log() -> None:
            try:
                await self.log.add(batch)
                reached("log written")
            except PyMongoError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            if changes.changes:
                tasks.start_soon(write_documents)
            tasks.start_soon(write_log)
        if failures:
            raise failures[0]
        return outcomes[0] if outcomes else Outcome()

    async def unpark(self) -> None:
        """Put back what was taken out by a committer that stopped amid it."""
        await self._writer.unpark()

    async def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions of those of these documents that are stored."""
        id_field, values = self.mapping.id_field, self._filters.values(ids)
        versions: dict[str, int] = {}
        for n in range(0, len(values), AT_ONCE):
            these = {id_field: {"$in": values[n : n + AT_ONCE]}}
            cursor = self._documents.find(these, {id_field: 1, "_sync": 1}, collation=await self.simple())
            versions |= {stored.id: stored.version for stored in self._read(await cursor.to_list(None))}
        return versions

    async def deleted(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions at which those of these documents that were ever deleted were deleted last."""
        keys = {self.mapping.key(document_id): document_id for document_id in ids}
        cursor = self._tombstones.find({"_id": {"$in": list(keys)}}, {"v": 1})
        return {keys[found["_id"]]: int(found["v"]) async for found in cursor}

    async def _alive(self, documents: Iterable[Stored]) -> list[Stored]:
        """Those of these documents that were not deleted since: a late committer's, which will be deleted again."""
        documents = list(documents)
        deleted = await self.deleted(stored.id for stored in documents if stored.version)
        return [stored for stored in documents if deleted.get(stored.id, -1) < stored.version]

    def _read(self, found: Iterable[RawBSONDocument]) -> Iterator[Stored]:
        """What was found, as far as its ids are of the mapping's type."""
        return (stored for raw in found if (stored := read_stored(self.mapping, bytes(raw.raw))) is not None)

    async def fence_off(self, versions: Dict[str, int], held: Dict[str, int]) -> None:
        """Have nothing that is older than these versions replace what is held of documents, or that nothing is.

        Args:
            versions: for each document's id, the version that what is held of it gets, unless that is newer.
            held: the versions of those that are held, or of their deletes; what has changed since stays as it is.
        """
        raised, tombstones = [], []
        for document_id, version in versions.items():
            if document_id not in held:
                tombstones.append(self._tombstone(Remove(document_id, version), datetime.now(UTC)))
            elif held[document_id] < version:
                one, other = Int64(held[document_id]), Int64(version)
                raised.append(self._filters.raised({"_sync.v": one} | self._filters.with_id(document_id), version))
                tombstones.append(UpdateOne({"_id": self.mapping.key(document_id), "v": one}, {"$set": {"v": other}}))
        await self._raise_versions(raised)
        if tombstones:
            await self._tombstones.bulk_write(tombstones, ordered=False)

    async def _raise_versions(self, operations: Sequence[UpdateOne]) -> None:
        try:
            if operations:
                await self._documents.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            failures = error.details.get("writeErrors", [])
            if error.details.get("writeConcernErrors") or not all(
                meaning_of(failure.get("code")) in (Meaning.DOCUMENT, Meaning.DUPLICATE) for failure in failures
            ):
                raise
            # That is somebody's validation of documents: those stay as they are.

    async def set_version(self, document_id: str, held: int, version: int) -> None:
        """Give what MongoDB holds of a document, or of its delete, another version, if it is still this one.

        A delete of before, which a document that came from elsewhere has survived, stays older than that.
        """
        older = {"_id": self.mapping.key(document_id), "v": {"$gte": Int64(version), "$lt": Int64(held)}}
        await self._tombstones.update_one(older, {"$set": {"v": Int64(version - 1)}})
        await self._raise_versions([self._filters.raised(self._filters.exactly(document_id, held), version)])
        buried = {"_id": self.mapping.key(document_id), "v": Int64(held)}
        await self._tombstones.update_one(buried, {"$set": {"v": Int64(version)}})

    async def fenced_off(self, held: Dict[str, int]) -> set[str]:
        """Those of these documents whose version was given to them by `fence_off`."""
        keys = {letter_key(self.mapping.key(document_id).encode()): document_id for document_id in held}
        fences = {"mapping": self.mapping.prefix, "key": {"$in": list(keys)}}
        letters = self._dead_letters.find(fences, {"key": 1, "fences": 1})
        return {keys[found["key"]] async for found in letters if held[keys[found["key"]]] in found.get("fences", ())}

    async def keep_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep refused states; the same state again changes nothing."""
        operations = [keep(letter, self.mapping, datetime.now(UTC)) for letter in letters]
        await self._dead_letters.bulk_write(operations, ordered=False)

    async def rewinds(self) -> Rewinds:
        """How often Redis had forgotten something, and the last time."""
        mine = {"mapping": self.mapping.prefix}
        found = await self._rewinds.find_one(mine, sort=[("found_at", -1)])
        return Rewinds(
            count=await self._rewinds.count_documents(mine),
            last=None if found is None else RewindReport.model_validate(found),
        )

    async def last_audit(self) -> AuditReport | None:
        """The latest report; None when there was no audit yet."""
        return next(iter(await self.audits(limit=1)), None)

    async def audits(self, *, limit: int) -> list[AuditReport]:
        """The latest reports, the newest first."""
        found = self._audits.find({"mapping": self.mapping.prefix}).sort("started_at", -1).limit(limit)
        return [AuditReport.model_validate(report) for report in await found.to_list(limit)]

    async def count_dead_letters(self) -> int:
        """How many refused states of this mapping are kept."""
        return await self._dead_letters.count_documents({"mapping": self.mapping.prefix})

    async def _delete_again(self, inserted: Sequence[Change]) -> None:
        """Delete what was inserted late, by a committer that was held up, after another one had deleted it."""
        deleted = await self.deleted(change.document_id for change in inserted)
        late = [
            self._filters.operation(Remove(change.document_id, deleted[change.document_id]))
            for change in inserted
            if reaches(deleted.get(change.document_id, -1), change.version + 1)
        ]
        if late:
            await self._documents.bulk_write(late, ordered=False)

    async def _bury(self, removed: Sequence[Remove]) -> None:
        """Remember that these documents are deleted."""
        now = datetime.now(UTC)
        await self._tombstones.bulk_write([self._tombstone(change, now) for change in removed], ordered=False)

    def _tombstone(self, change: Remove, now: datetime) -> Any:
        update = {"$max": {"v": Int64(change.version)}, "$set": {"mapping": self.mapping.prefix, "at": now}}
        return UpdateOne({"_id": self.mapping.key(change.document_id)}, update, upsert=True)
