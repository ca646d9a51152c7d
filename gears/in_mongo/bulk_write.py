"""Writing a batch of changes: what failed is told apart, and what waits for one another is written in its order."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from typing import Any

import anyio
import bson
import structlog
from bson import Binary
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DeleteOne, ReplaceOne
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mapping import Mapping
from gears.contract.version import reaches
from gears.documents.json_bson import document_bson, elements
from gears.documents.mongo_form import Stored, read_stored, stored_text
from gears.in_mongo.batch_log import Head
from gears.in_mongo.errors.describe import NotAllWritten, describe, describe_item
from gears.in_mongo.errors.what_codes_mean import Meaning, meaning_of
from gears.in_mongo.unique_indexes.in_the_way import UniqueIndex, meet
from gears.in_mongo.unique_indexes.write_order import (
    Blocker,
    Changes,
    Outcome,
    Standing,
    dependents,
    plan,
    standing,
    waiters,
)
from gears.in_mongo.version_filter import Filters
from gears.process.failpoint import reached

Document = dict[str, Any]

UNREADABLE = frozenset({2, 5, 9, 14, 15, 22, 52, 54, 55, 56, 57, 10334, 17280, 17419})
"""Codes with which servers answer a whole command when they can't read a document in it, such as BadValue, Overflow,
FailedToParse, TypeMismatch, InvalidBSON and BSONObjectTooLarge: https://github.com/mongodb/mongo, `error_codes.yml`."""

AT_ONCE = 100
"""How many documents are looked for by one query; servers that compare with each one take long for more."""

_QUERY_BYTES = 1024 * 1024
"""How large they may be together, the last one not counted."""

_WRITES = 1000
"""How many documents are in one bulk write; each has a deadline of its own."""

_LOOK_SECONDS = 2.0
_ROUNDS = 20
"""How often what is in the way is looked for before what waits is set aside; each round takes it away, or refuses."""

_READ: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler="replace"
)

log = structlog.get_logger()


def is_of_one(error: PyMongoError) -> bool:
    """Whether MongoDB's answer to a whole command may be for a single document in it."""
    return isinstance(error, OperationFailure) and not isinstance(error, BulkWriteError | WriteConcernError)


def is_unreadable(error: PyMongoError) -> bool:
    """Whether it is one that servers give where they can't read a document in a command."""
    return is_of_one(error) and isinstance(error, OperationFailure) and error.code in UNREADABLE


class Writer:
    """Writes the documents of one mapping.

    Args:
        documents: the collection, with documents as bytes.
        parked: where documents are kept that are taken out for a moment.
        mapping: the mapping.
        filters: its filters.
        versions: tells the versions of those of these documents that are stored.
        bury: remembers that these documents are deleted.
        delete_again: deletes those of these documents that were inserted late, after they had been deleted.
        head: tells which versions are ours.
    """

    def __init__(
        self,
        documents: AsyncIOMotorCollection[Any],
        parked: AsyncIOMotorCollection[Document],
        mapping: Mapping,
        filters: Filters,
        versions: Callable[[Iterable[str]], Awaitable[dict[str, int]]],
        bury: Callable[[Sequence[Remove]], Awaitable[None]],
        delete_again: Callable[[Sequence[Change]], Awaitable[None]],
        head: Callable[[], Awaitable[Head]],
    ) -> None:
        self._documents = documents
        self._parked = parked
        self._mapping = mapping
        self._filters = filters
        self._versions = versions
        self._bury = bury
        self._delete_again = delete_again
        self._head = head

    async def write(self, batch: Changes) -> Outcome:
        """Bring MongoDB to these states, newer ones excepted.

        Raises:
            MongoError: nothing is certain; do it again.
            NotAllWritten: nothing is written; it is not for the documents.
        """
        outcome = Outcome()
        sources = batch.sources
        first = sorted(
            (change for i, change in batch.changes.items() if i not in sources),
            key=lambda change: isinstance(change, Upsert),
        )
        if first and (stuck := await self._attempt(first, outcome)):
            await self._resolve(batch, stuck, outcome)
        if outcome.needed:
            return outcome
        outcome.kept |= batch.kept(outcome.refused)
        for source in batch.kept(outcome.failed) - outcome.kept:
            outcome.failed[source] = "what it was renamed to can't be written yet"
        moved = [
            change
            for i in sources
            if i not in outcome.kept and i not in outcome.failed
            if isinstance(change := batch.changes[i], Remove)
        ]
        if moved:
            await self._bury(moved)
            await self._attempt(moved, outcome)
        others = batch.changes.keys() - batch.patient
        if others and others <= outcome.failed.keys():
            raise NotAllWritten(outcome.failed)
        return outcome

    async def unpark(self) -> None:
        """Put back what was taken out by a committer that stopped amid it."""
        async for found in self._parked.find({"mapping": self._mapping.prefix}):
            await self._put_back(found["id"], found["document"])

    async def _attempt(
        self,
        changes: Sequence[Change],
        outcome: Outcome,
        documents: Dict[str, bytes] | None = None,
    ) -> dict[str, Document]:
        """Write these; returns what failed since another document has the same value."""
        stuck: dict[str, Document] = {}
        for n in range(0, len(changes), _WRITES):
            stuck |= await self._attempt_some(changes[n : n + _WRITES], outcome, documents)
        return stuck

    async def _attempt_some(
        self, changes: Sequence[Change], outcome: Outcome, documents: Dict[str, bytes] | None
    ) -> dict[str, Document]:
        operations = [self._filters.operation(change, (documents or {}).get(change.document_id)) for change in changes]
        stuck: dict[str, Document] = {}
        try:
            result = await self._documents.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            await self._look_at_inserted([changes[found["index"]] for found in error.details.get("upserted", [])])
            if error.details.get("writeConcernErrors"):
                raise
            failures: list[Document] = error.details.get("writeErrors", [])
            for failure in failures:
                self._sort(changes[failure["index"]], failure, outcome, stuck)
            await self._delete_foreign(changes, error.details.get("nRemoved", 0))
        except OperationFailure as error:
            await self._blame(changes, error, outcome)
        else:
            await self._look_at_inserted([changes[index] for index in result.upserted_ids or {}])
            await self._delete_foreign(changes, result.deleted_count)
        return stuck

    async def _delete_foreign(self, changes: Sequence[Change], deleted: int) -> None:
        """Delete also what carries a version that somebody else gave.

        Args:
            changes: what was tried.
            deleted: how many documents were deleted.
        """
        removed = [change for change in changes if isinstance(change, Remove)]
        if len(removed) > deleted:
            foreign = await self._foreign({c.document_id: c for c in removed})
            exactly = (self._filters.exactly(i, version) for i, version in foreign.items())
            await _bulk(self._documents, [DeleteOne(one, collation=self._filters.collation) for one in exactly])

    async def _foreign(self, changes: Dict[str, Change], held: Dict[str, int] | None = None) -> dict[str, int]:
        """The versions of those of these documents that look newer, and that no committer of this mapping gave."""
        held = await self._versions(changes) if held is None else held
        newer = {i: version for i, version in held.items() if i in changes and version > changes[i].version}
        if not newer:
            return {}
        head = await self._head()
        return {i: version for i, version in newer.items() if not head.gave(version)}

    async def _look_at_inserted(self, inserted: Sequence[Change]) -> None:
        """Delete what was inserted late: at once, also by a committer that has just been told to stop."""
        reached("documents written")
        if inserted:
            with anyio.move_on_after(_LOOK_SECONDS, shield=True):
                await self._delete_again(inserted)

    def _sort(self, change: Change, failure: Document, outcome: Outcome, stuck: dict[str, Document]) -> None:
        """Take note of a failure of one change."""
        meaning = meaning_of(failure.get("code"))
        if meaning is Meaning.DUPLICATE and isinstance(change, Upsert):
            stuck[change.document_id] = failure
        elif meaning is Meaning.DOCUMENT and isinstance(change, Upsert):
            outcome.refused[change.document_id] = f"MongoDB refused it: {describe_item(failure)}"
        else:
            outcome.failed[change.document_id] = describe_item(failure)

    async def _blame(self, changes: Sequence[Change], error: OperationFailure, outcome: Outcome) -> None:
        """Tell a document for which a whole command fails from other failures (raised).

        The document is to blame if it fails alone and again, while the same command with an empty one is taken.
        """
        if len(changes) > 1 or not isinstance(changes[0], Upsert) or not is_of_one(error):
            raise error
        change = changes[0]
        never = {"$and": [self._filters.older(change), {"_id": {"$exists": False}}]}
        either: tuple[Any, ...] = ({}, RawBSONDocument(change.document))
        for document in either:
            try:
                await self._documents.replace_one(never, document)
            except OperationFailure as again:
                if not document or again.code != error.code:
                    raise
                if error.code in UNREADABLE:
                    outcome.refused[change.document_id] = f"MongoDB can't read it (code {error.code})"
                else:
                    outcome.failed[change.document_id] = describe(error)
                return
        raise error

    async def _resolve(self, batch: Changes, stuck: dict[str, Document], outcome: Outcome) -> None:
        """Write what others are in the way of, as far as these let go."""
        unexplained: set[str] = set()
        for _ in range(_ROUNDS):
            held = await self._versions(stuck)
            foreign = await self._foreign({i: c for i in stuck if (c := batch.change(i)) is not None}, held)
            if foreign:  # what is no version of ours says nothing of what is newer
                never = [self._filters.raised(self._filters.exactly(i, at), 0) for i, at in foreign.items()]
                await _bulk(self._documents, never)
                held |= dict.fromkeys(foreign, 0)
            stuck = {i: f for i, f in stuck.items() if not self._is_newer(batch.change(i), held.get(i, -1))}
            blockers = await self._in_the_way(batch, stuck)
            equal = _equal(self._mapping, batch, blockers)
            waits = self._waits(batch, stuck, blockers, equal, outcome)
            if outcome.needed:
                return
            for i in unexplained & {i for i, found in blockers.items() if not found} & waits.keys():
                del waits[i]
                outcome.failed[i] = f"{describe_item(stuck[i])}; but there is none"
            unexplained |= {i for i in stuck if i in waits and not blockers[i]}
            if not waits:
                return
            todo = plan(waits, batch)
            stuck = await self._attempt(todo.in_order, outcome) if todo.in_order else {}
            if todo.together:
                stuck |= await self._exchange(todo.together, batch, waits, outcome)
            if not stuck:
                return
        outcome.failed |= dict.fromkeys(stuck, "others have taken what it needs each time that it was free")

    def _is_newer(self, change: Change | None, held: int) -> bool:
        return change is not None and reaches(held, change.version)

    def _waits(
        self,
        batch: Changes,
        stuck: Dict[str, Document],
        blockers: Dict[str, Sequence[Blocker]],
        equal: Dict[str, bool],
        outcome: Outcome,
    ) -> dict[str, set[str]]:
        """What each waits for, and what that waits for; those that wait for what won't go are refused, or set aside."""
        held_up = waiters({i: [b.stored.id for b in found if b.stored is not None] for i, found in blockers.items()})
        left, looked_at = set(blockers), list(blockers)
        outcome.kept |= batch.kept(outcome.refused)
        while looked_at:
            i = looked_at.pop()
            if i not in left:
                continue
            by_standing = {standing(blocker, batch, left, outcome, equal): blocker for blocker in blockers[i]}
            if keeping := by_standing.get(Standing.KEEPS):
                outcome.refused[i] = f"MongoDB refused it: {self._taken(keeping, stuck.get(i, {}))}"
                stays = {i, *batch.kept([i])}
                outcome.kept |= stays - {i}
            elif Standing.FAILS in by_standing:
                outcome.failed[i] = "it waits for another document, which can't be written yet"
                stays = {i}
            else:
                continue
            left.discard(i)
            looked_at.extend(other for stayed in stays for other in held_up.get(stayed, ()))
        waits: dict[str, set[str]] = {}
        reached = [i for i in stuck if i in left]
        while reached:
            i = reached.pop()
            if i in left and i not in waits:
                waits[i] = {blocker.stored.id for blocker in blockers[i] if blocker.stored is not None}
                reached.extend(waits[i])
                outcome.needed |= {
                    blocker.stored.id
                    for blocker in blockers[i]
                    if blocker.stored is not None
                    if standing(blocker, batch, left, outcome, equal) is Standing.UNKNOWN
                }
        return waits

    def _taken(self, blocker: Blocker, failure: Document) -> str:
        said = describe_item(failure) if failure else "another document has the same value"
        if blocker.stored is not None:
            return f"{said}; held by {self._mapping.key(blocker.stored.id)}, in the unique index {blocker.index}"
        return (
            f"{said}; held by the document with _id {blocker.object_id} in {self._mapping.namespace}, in the unique "
            f"index {blocker.index}, whose {self._mapping.id_field!r} is no id: change that, and write this again"
        )

    async def _in_the_way(self, batch: Changes, stuck: Iterable[str]) -> dict[str, list[Blocker]]:
        """What is in the way of these; and if something beside the batch is, what is in the way of all that is."""
        blockers = await self._blockers([change for i in stuck if isinstance(change := batch.change(i), Upsert)])
        beside = {i: change for i, change in batch.beside.items() if isinstance(change, Upsert) and i not in blockers}
        found = {blocker.stored.id for each in blockers.values() for blocker in each if blocker.stored is not None}
        return blockers | (await self._blockers(list(beside.values())) if found & beside.keys() else {})

    async def _blockers(self, upserts: Sequence[Upsert]) -> dict[str, list[Blocker]]:
        """The documents that hold what each of these needs."""
        blockers: dict[str, list[Blocker]] = {upsert.document_id: [] for upsert in upserts}
        if upserts:
            indexes = [index async for found in self._documents.list_indexes() if (index := UniqueIndex.parse(found))]
            for some in _some(upserts):
                documents = {upsert.document_id: _decode(upsert.document) for upsert in some}
                for index in indexes:
                    for document_id, blocker in await self._holders(index, documents):
                        blockers[document_id].append(blocker)
        return blockers

    async def _holders(self, index: UniqueIndex, documents: Dict[str, Document]) -> list[tuple[str, Blocker]]:
        """Ids of these documents, each with one that holds what it needs in this index."""
        needed = {
            i: keys
            for i, document in documents.items()
            if "_id" in document or index.fields != ("_id",)
            if (keys := index.needs(document)) is not None
        }
        if not needed:
            return []
        by_server = index.collation is not None  # nobody else knows what is equal
        collation = index.collation or self._filters.collation
        found = await self._documents.find(index.holders(needed.values()), collation=collation).to_list(None)
        if found and by_server and len(needed) > 1:
            return [each for i in needed for each in await self._holders(index, {i: documents[i]})]
        holders: list[tuple[str, Blocker]] = []
        for raw in found:
            stored, held = read_stored(self._mapping, bytes(raw.raw)), index.holds(_decode(bytes(raw.raw)))
            blocker = Blocker(index.name, stored, repr(raw["_id"]))
            holders += [
                (i, blocker)
                for i, keys in needed.items()
                if (stored is None or stored.id != i) and (by_server or meet(keys, held))
            ]
        return holders

    async def _exchange(
        self, changes: Sequence[Change], batch: Changes, waits: Dict[str, set[str]], outcome: Outcome
    ) -> dict[str, Document]:
        """Take these out, and put them in as they are to be, or as they were.

        What is taken out is kept elsewhere until then, so that it can be put back whoever stops amid it.
        """
        found = await self._find([change.document_id for change in changes])
        changes = [
            c for c in changes if c.document_id not in found or not self._is_newer(c, found[c.document_id].version)
        ]
        ids = [change.document_id for change in changes]
        old = {i: found[i] for i in ids if i in found}
        try:
            await self._park(old)
        except DocumentTooLarge:
            outcome.failed |= dict.fromkeys(ids, "it is too large to be kept elsewhere while it is exchanged")
            return {}
        reached("parked")
        taken = [
            DeleteOne(
                self._filters.exactly(i, stored.version) if stored.version else self._filters.with_id(i),
                collation=self._filters.collation,
            )
            for i, stored in old.items()
        ]
        await _bulk(self._documents, taken)
        reached("taken out")
        upserts = [change for change in changes if isinstance(change, Upsert)]
        documents = {i: self._keeping_id(change, old.get(i)) for i, change in _by_id(upserts).items()}
        ours = Outcome()
        stuck = await self._attempt(upserts, ours, documents) if upserts else {}
        in_the_way = await self._blockers([change for change in upserts if change.document_id in stuck])
        for i, found_there in in_the_way.items():
            if found_there:  # it was put in a moment ago
                ours.refused[i] = f"MongoDB refused it: {self._taken(found_there[0], stuck[i])}"
            else:
                ours.failed[i] = f"{describe_item(stuck[i])}; but there is none"
        back = dependents([*ours.refused, *ours.failed], waits)
        back = (back | batch.kept(back)) & set(ids)  # what is renamed is never nowhere
        gone = [
            DeleteOne(self._filters.exactly(c.document_id, c.version), collation=self._filters.collation)
            for c in upserts
            if c.document_id in back
        ]
        await _bulk(self._documents, gone)
        for i in back & old.keys():
            await self._put_back(i, old[i].raw)
        stays = set(ids) - back
        removed = [c for c in changes if isinstance(c, Remove) and c.document_id in stays & batch.beside.keys()]
        if removed:  # those in the batch are buried with all of it
            await self._bury(removed)
        await self._parked.delete_many({"_id": {"$in": [self._mapping.key(i) for i in stays]}})
        outcome.refused |= ours.refused
        outcome.failed |= ours.failed
        return {i: {} for i in back if i not in ours.refused and i not in ours.failed and i in waits}

    def _keeping_id(self, upsert: Upsert, old: Stored | None) -> bytes:
        """The document with the `_id` that MongoDB gave it before."""
        if self._mapping.id_field == "_id" or old is None:
            return upsert.document
        [own] = [
            b"%c_id\0%b" % (tag, old.raw[start:end]) for name, tag, start, end in elements(old.raw) if name == "_id"
        ]
        return document_bson([own, upsert.document[4:-1]])

    async def _find(self, ids: Sequence[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for n in range(0, len(ids), AT_ONCE):
            these = {self._mapping.id_field: {"$in": self._filters.values(ids[n : n + AT_ONCE])}}
            async for raw in self._documents.find(these, collation=self._filters.collation):
                if (stored := read_stored(self._mapping, bytes(raw.raw))) is not None:
                    found[stored.id] = stored
        return found

    async def _park(self, old: Dict[str, Stored]) -> None:
        parked = [
            ReplaceOne(
                {"_id": self._mapping.key(i)},
                {"mapping": self._mapping.prefix, "id": i, "document": Binary(stored.raw)},
                upsert=True,
            )
            for i, stored in old.items()
        ]
        await _bulk(self._parked, parked)

    async def _put_back(self, document_id: str, raw: bytes) -> None:
        """Put a document back, unless there is one with its id; what now has its place keeps it."""
        try:
            await self._documents.insert_one(RawBSONDocument(raw))
        except DuplicateKeyError:
            if not await self._find([document_id]):
                log.warning("a document could not be put back", key=self._mapping.key(document_id))
                return
        stored = read_stored(self._mapping, raw)
        if stored is not None and stored.version:  # unless it was deleted since
            await self._delete_again([Upsert(document_id, stored.version, raw)])
        await self._parked.delete_one({"_id": self._mapping.key(document_id)})


async def _bulk(collection: AsyncIOMotorCollection[Any], operations: Sequence[Any]) -> None:
    for n in range(0, len(operations), _WRITES):
        await collection.bulk_write(operations[n : n + _WRITES], ordered=False)


def _decode(document: bytes) -> Document:
    return bson.decode(document, _READ)


def _some(upserts: Iterable[Upsert]) -> Iterator[list[Upsert]]:
    """As many at a time as one query is to look for."""
    some: list[Upsert] = []
    for upsert in upserts:
        some.append(upsert)
        if len(some) == AT_ONCE or sum(len(each.document) for each in some) > _QUERY_BYTES:
            yield some
            some = []
    if some:
        yield some


def _by_id(upserts: Iterable[Upsert]) -> dict[str, Upsert]:
    return {upsert.document_id: upsert for upsert in upserts}


def _equal(mapping: Mapping, batch: Changes, blockers: Dict[str, Sequence[Blocker]]) -> dict[str, bool]:
    """Of documents beside the batch that are in the way, whether MongoDB holds what Redis holds."""
    equal: dict[str, bool] = {}
    for found in blockers.values():
        for stored in (blocker.stored for blocker in found):
            change = batch.beside.get(stored.id) if stored is not None else None
            if stored is not None and isinstance(change, Upsert):
                held = read_stored(mapping, change.document)
                equal[stored.id] = held is not None and stored_text(mapping, held) == stored_text(mapping, stored)
    return equal
