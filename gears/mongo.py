"""The one place that talks to MongoDB (Motor today).

Beside a mapping's own collection, its database holds five of ours: `sync_tombstones`, `sync_checkpoints`,
`sync_dead_letters`, `sync_audits` and `sync_rewinds`.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import bson
import pymongo
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import DeleteOne, ReadPreference, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from gears.audit_report import AuditReport
from gears.build import Say, say_nothing
from gears.checkpoint import Checkpoint
from gears.collection import Collection, unfit
from gears.dead_letters import DeadLetter, keep, letter_key
from gears.documents.stored import Stored, read_stored
from gears.errors import ConfigError, Unfit, without_secrets
from gears.failpoint import reached
from gears.look import look
from gears.mapping import Mapping
from gears.mongo_texts import describe_item
from gears.rewinds import RewindReport, Rewinds
from gears.stream import farthest, reaches
from gears.tidy import ensure_tidy
from gears.unique import DUPLICATE_KEY, ensure_unique

MongoError = PyMongoError
"""What every call here raises when MongoDB can't be reached or doesn't do what it was asked."""

Document = dict[str, Any]

ACKNOWLEDGED = WriteConcern("majority", j=True)

TOMBSTONE_DAYS = 30
"""How long deletes are remembered; Redis restored from an older snapshot than that may bring them back."""

PAGE_BYTES = 16 * 1024 * 1024
"""How many bytes of documents, the last one not counted, are on a page at the most."""

RAW = CodecOptions(document_class=RawBSONDocument)
"""Documents as bytes: what JSON and `bson` make of them is for `gears.documents` to say."""

_TRANSIENT = frozenset(
    # https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md, and what an
    # operator can mend: rights, disk space, memory, locks, time limits
    {6, 7, 13, 18, 24, 46, 50, 64, 89, 91, 112, 133, 134, 146, 189, 262, 8000, 9001, 10107, 11600, 11601, 11602}
    | {13435, 13436, 14031, 16500}
    # TransactionTooOld, SnapshotUnavailable, ClientDisconnect, TemporarilyUnavailable (cache full), UserWritesBlocked
    | {225, 246, 279, 365, 371}
)


UNREADABLE = frozenset({2, 5, 9, 14, 15, 22, 52, 54, 55, 56, 57, 10334, 17280, 17419})
"""Codes with which servers answer a whole command when they can't read a document in it, such as BadValue, Overflow,
FailedToParse, TypeMismatch, InvalidBSON and BSONObjectTooLarge: https://github.com/mongodb/mongo, `error_codes.yml`."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Bring a document to this state, unless MongoDB holds a newer one.

    Args:
        document_id: its id, as text.
        version: the state's version.
        document: what MongoDB is to hold, as BSON.
        has_its_id: whether Redis holds the id in the document, as it should.
    """

    document_id: str
    version: int
    document: bytes
    has_its_id: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a document and remember that, unless MongoDB holds a newer state."""

    document_id: str
    version: int


Change = Upsert | Remove


def open_client(uri: str, *, timeout: float) -> "AsyncIOMotorClient[Document]":
    """A client for this URI; every operation ends within `timeout` seconds, server selection included.

    Raises:
        ConfigError: the URI can't be used.
    """
    try:
        return AsyncIOMotorClient(
            uri,
            timeoutMS=int(timeout * 1000),
            serverSelectionTimeoutMS=int(min(timeout, 3.0) * 1000),
            connectTimeoutMS=int(min(timeout, 3.0) * 1000),
            appname="writethrough",
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",
            unicode_decode_error_handler="replace",
        )
    except (PyMongoError, ValueError) as error:
        raise ConfigError(f"MONGO_URI can't be used: {without_secrets(uri, error)}") from error


def within(seconds: float) -> AbstractContextManager[Any]:
    """A deadline for the operations in a block; they raise `MongoError` when it passes."""
    return pymongo.timeout(seconds)


async def ping(client: "AsyncIOMotorClient[Document]", *, timeout: float) -> None:
    """Raise `MongoError` unless MongoDB answers within `timeout` seconds."""
    with within(timeout):
        await client.admin.command("ping")


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
        self._checkpoints: AsyncIOMotorCollection[Document] = database["sync_checkpoints"]
        self._dead_letters: AsyncIOMotorCollection[Document] = database["sync_dead_letters"]
        self._audits: AsyncIOMotorCollection[Document] = database["sync_audits"]
        self._rewinds: AsyncIOMotorCollection[Document] = database["sync_rewinds"]

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
        reason = unfit(found, self.mapping)
        if reason is not None:
            raise Unfit(reason)
        await self.ensure_unique(say)
        return found

    async def look(self) -> Collection:
        """What is known of the mapping's collection; see `gears.look.look`."""
        return await look(self._documents)

    async def ensure_unique(self, say: Say = say_nothing) -> None:
        """Ensure the unique index on the id; see `gears.unique.ensure_unique`."""
        await ensure_unique(self._documents, self.mapping, say)

    async def tidy(self) -> list[str]:
        """Ensure the indexes without which only space or time is lost; see `gears.tidy.ensure_tidy`."""
        return await ensure_tidy(self._dead_letters, self._tombstones, days=TOMBSTONE_DAYS)

    async def find(self, document_id: str) -> Stored | None:
        """The stored document with this id; None also if it was deleted since."""
        found = await self._documents.find_one(self._with_id(document_id))
        return next(iter(await self._alive(self._read([found] if found else []))), None)

    async def exists(self, document_id: str) -> bool:
        """Whether a document with this id is stored."""
        return await self._documents.find_one(self._with_id(document_id), {"_id": 1}) is not None

    async def page(self, *, limit: int, after: str | None) -> tuple[list[Stored], bool]:
        """Stored documents with ids of the mapping's type above `after`, by id, and whether there are more.

        Up to `limit`, and no more once they take `PAGE_BYTES`.
        """
        id_field, id_type = self.mapping.id_field, self.mapping.id_type
        above = {"$gte": id_type.lowest} if after is None else {"$gt": id_type.bound(after)}
        found: list[Stored] = []
        size = 0
        cursor = self._documents.find_raw_batches({id_field: above}).sort(id_field, 1).limit(limit + 1)
        try:
            async for batch in cursor:
                for stored in self._read(bson.decode_iter(batch, RAW)):
                    if len(found) == limit or size >= PAGE_BYTES:
                        return found, True
                    found.append(stored)
                    size += len(stored.raw)
        finally:
            await cursor.close()
        return found, False

    async def commit(self, changes: Sequence[Change], checkpoint: Checkpoint) -> dict[str, str]:
        """Bring MongoDB to these states, newer ones excepted, and move the checkpoint.

        Tombstones first, so that a delete is never done without being remembered; then the documents, and the
        checkpoint at the same time. Doing it again changes nothing.

        Args:
            changes: at most one per id.
            checkpoint: how far MongoDB is when this returns.

        Returns:
            Ids of refused documents, each with the reason; all others are durable on a majority.

        Raises:
            MongoError: nothing is certain; do it again.
        """
        removed = [change for change in changes if isinstance(change, Remove)]
        if removed:
            now = datetime.now(UTC)
            await self._tombstones.bulk_write([self._tombstone(change, now) for change in removed], ordered=False)
        reached("tombstones written")
        refused: dict[str, str] = {}
        failures: list[PyMongoError] = []

        async def write_documents() -> None:
            try:
                refused.update(await self._write(changes))
            except PyMongoError as error:
                failures.append(error)

        update = checkpoint.update()

        async def write_checkpoint() -> None:
            try:
                await self._checkpoints.update_one({"_id": self.mapping.prefix}, update, upsert=True)
                reached("checkpoint written")
            except PyMongoError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            if changes:
                tasks.start_soon(write_documents)
            tasks.start_soon(write_checkpoint)
        if failures:
            raise failures[0]
        return refused

    async def checkpoint(self) -> Checkpoint | None:
        """How far MongoDB knows itself to be; None when nothing was ever committed."""
        found = await self._checkpoints.find_one({"_id": self.mapping.prefix})
        return None if found is None else Checkpoint.parse(found)

    async def versions(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions of those of these documents that are stored."""
        id_field = self.mapping.id_field
        cursor = self._documents.find({id_field: {"$in": self._values(ids)}}, {id_field: 1, "_sync": 1})
        return {stored.id: stored.version for stored in self._read(await cursor.to_list(None))}

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

    def _values(self, ids: Iterable[str]) -> list[Any]:
        return [self.mapping.id_type.parse(document_id) for document_id in ids]

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
                raised.append(UpdateOne(self._with_id(document_id) | {"_sync.v": one}, {"$set": {"_sync.v": other}}))
                tombstones.append(UpdateOne({"_id": self.mapping.key(document_id), "v": one}, {"$set": {"v": other}}))
        await self._raise_versions(raised)
        if tombstones:
            await self._tombstones.bulk_write(tombstones, ordered=False)

    async def _raise_versions(self, operations: Sequence[UpdateOne]) -> None:
        try:
            if operations:
                await self._documents.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            _raise_transient(error)  # the rest is somebody's validation of documents: those stay as they are

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

    async def _write(self, changes: Sequence[Change]) -> dict[str, str]:
        refused = {}
        try:
            result = await self._documents.bulk_write([self._operation(change) for change in changes], ordered=False)
        except BulkWriteError as error:
            refused = await self._refusals(changes, error)
            inserted = [upserted["index"] for upserted in error.details.get("upserted", [])]
        except OperationFailure as error:
            return await self._unreadable(changes, error)
        else:
            inserted = list(result.upserted_ids or {})
        reached("documents written")
        if inserted:
            await self._delete_again([changes[index] for index in inserted])
        return refused

    async def _unreadable(self, changes: Sequence[Change], error: OperationFailure) -> dict[str, str]:
        """Tell a document that the server can't read, so that it did nothing at all, from other failures (raised).

        The document is to blame if it fails alone and again, while the same command with an empty one is taken.
        """
        if len(changes) > 1 or not isinstance(changes[0], Upsert) or error.code not in UNREADABLE:
            raise error
        change = changes[0]
        never = {"$and": [self._older(change), {"_id": {"$exists": False}}]}
        either: tuple[Any, ...] = ({}, RawBSONDocument(change.document))
        for document in either:
            try:
                await self._documents.replace_one(never, document)
            except OperationFailure as again:
                if not document or again.code != error.code:
                    raise
                return {change.document_id: f"MongoDB can't read it (code {error.code})"}
        raise error

    async def _delete_again(self, inserted: Sequence[Change]) -> None:
        """Delete what was inserted late, by a committer that was held up, after another one had deleted it."""
        deleted = await self.deleted(change.document_id for change in inserted)
        late = [
            DeleteOne(self._older(Remove(change.document_id, deleted[change.document_id])))
            for change in inserted
            if deleted.get(change.document_id, -1) > change.version
        ]
        if late:
            await self._documents.bulk_write(late, ordered=False)

    async def _refusals(self, changes: Sequence[Change], error: BulkWriteError) -> dict[str, str]:
        """Tell refusals from newer states (neither is done again) and from what must be done again (raised)."""
        _raise_transient(error)
        failed: list[Document] = error.details.get("writeErrors", [])
        duplicates = {changes[f["index"]].document_id for f in failed if f["code"] == DUPLICATE_KEY}
        held = await self.versions(duplicates) if duplicates else {}
        refused = {}
        for failure in failed:
            change = changes[failure["index"]]
            if failure["code"] == DUPLICATE_KEY:
                if reaches(held.get(change.document_id, -1), change.version):
                    continue
                if self._is_id_index(failure):
                    refused[change.document_id] = await self._why_taken(change.document_id, error)
                    continue
            refused[change.document_id] = f"MongoDB refused it: {describe_item(failure)}"
        return refused

    async def _why_taken(self, document_id: str, error: BulkWriteError) -> str:
        """Why no document can have this id; raises the error when it was another document with the same id."""
        id_field = self.mapping.id_field
        array = {"$all": self._values([document_id]), "$type": "array"}
        found = await self._documents.find_one({id_field: array}, {"_id": 1})
        if found is None:
            raise error
        return (
            f"in {self.mapping.namespace}, the {id_field!r} of the document with _id {found['_id']!r} is an array that "
            "holds this id; change that, and write this document again"
        )

    def _is_id_index(self, failure: Document) -> bool:
        pattern = failure.get("keyPattern")
        if pattern is not None:
            return list(pattern) == [self.mapping.id_field]
        return f"index: {self.mapping.id_field}_1 " in failure["errmsg"]

    def _older(self, change: Change) -> Document:
        newer = {"$gte": Int64(change.version), "$lte": Int64(farthest(change.version))}
        return {
            **self._with_id(change.document_id),
            "_sync.v": {"$not": newer | {"$type": ["long", "int"]}},  # what is further, or of another type, isn't ours
        }

    def _with_id(self, document_id: str) -> Document:
        id_field, value = self.mapping.id_field, self.mapping.id_type.parse(document_id)
        if id_field == "_id":
            return {"_id": value}
        return {id_field: value, f"{id_field}.0": {"$exists": False}}  # nor an array that holds it

    def _operation(self, change: Change) -> Any:
        if isinstance(change, Remove):
            return DeleteOne(self._older(change))
        return ReplaceOne(self._older(change), RawBSONDocument(change.document), upsert=True)

    def _tombstone(self, change: Remove, now: datetime) -> Any:
        update = {"$max": {"v": Int64(change.version)}, "$set": {"mapping": self.mapping.prefix, "at": now}}
        return UpdateOne({"_id": self.mapping.key(change.document_id)}, update, upsert=True)


def _raise_transient(error: BulkWriteError) -> None:
    """Raise it if what failed is to be done again."""
    failed = error.details.get("writeErrors", [])
    if error.details.get("writeConcernErrors") or any(failure["code"] in _TRANSIENT for failure in failed):
        raise error
