"""One try to write documents, and what became of each: refused, another one is in its way, or to be tried again."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from typing import Any

import anyio
from bson.raw_bson import RawBSONDocument
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DeleteOne
from pymongo.errors import BulkWriteError, OperationFailure

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.version import reaches
from gears.in_mongo.client import Document
from gears.in_mongo.documents import Documents
from gears.in_mongo.errors.describe import describe, describe_item
from gears.in_mongo.errors.what_errors_mean import Cause, Meaning, failures_of, judge
from gears.in_mongo.log.batch_log import Log
from gears.in_mongo.tombstones import Tombstones
from gears.in_mongo.unique_indexes.write_order import Outcome
from gears.process.failpoint import reached

_WRITES = 1000
"""How many documents are in one bulk write; each has a deadline of its own."""

_LOOK_SECONDS = 2.0


class BulkWrite:
    """Tries to write documents of one mapping.

    Args:
        documents: the mapping's.
        tombstones: tells what was deleted.
        log: tells which versions are ours.
    """

    def __init__(self, documents: Documents, tombstones: Tombstones, log: Log) -> None:
        self._stored = documents
        self._documents = documents.collection
        self._filters = documents.filters
        self._tombstones = tombstones
        self._log = log

    async def attempt(
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
            for failure in failures_of(error):
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
            foreign = await self.foreign({c.document_id: c for c in removed})
            exactly = (self._filters.exactly(i, version) for i, version in foreign.items())
            await in_bulk(self._documents, [DeleteOne(one, collation=self._filters.collation) for one in exactly])

    async def foreign(self, changes: Dict[str, Change], held: Dict[str, int] | None = None) -> dict[str, int]:
        """The versions of those of these documents that look newer, and that no committer of this mapping gave."""
        held = await self._stored.versions(changes) if held is None else held
        newer = {i: version for i, version in held.items() if i in changes and version > changes[i].version}
        if not newer:
            return {}
        head = await self._log.head()
        return {i: version for i, version in newer.items() if not head.gave(version)}

    async def _look_at_inserted(self, inserted: Sequence[Change]) -> None:
        """Delete what was inserted late: at once, also by a committer that has just been told to stop."""
        reached("documents written")
        if inserted:
            with anyio.move_on_after(_LOOK_SECONDS, shield=True):
                await self.delete_again(inserted)

    def _sort(self, change: Change, failure: Document, outcome: Outcome, stuck: dict[str, Document]) -> None:
        """Take note of a failure of one change."""
        meaning = judge(failure).meaning
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
        change, cause = changes[0], judge(error).cause
        if len(changes) > 1 or not isinstance(change, Upsert) or cause is Cause.ELSEWHERE:
            raise error
        never = {"$and": [self._filters.older(change), {"_id": {"$exists": False}}]}
        either: tuple[Any, ...] = ({}, RawBSONDocument(change.document))
        for document in either:
            try:
                await self._documents.replace_one(never, document)
            except OperationFailure as again:
                if not document or again.code != error.code:
                    raise
                if cause is Cause.UNREADABLE:
                    outcome.refused[change.document_id] = f"MongoDB can't read it (code {error.code})"
                else:
                    outcome.failed[change.document_id] = describe(error)
                return
        raise error

    async def delete_again(self, inserted: Sequence[Change]) -> None:
        """Delete what was inserted late, by a committer that was held up, after another one had deleted it."""
        deleted = await self._tombstones.versions(change.document_id for change in inserted)
        late = [
            self._filters.operation(Remove(change.document_id, deleted[change.document_id]))
            for change in inserted
            if reaches(deleted.get(change.document_id, -1), change.version + 1)
        ]
        if late:
            await self._documents.bulk_write(late, ordered=False)


async def in_bulk(collection: AsyncIOMotorCollection[Any], operations: Sequence[Any]) -> None:
    """Have these done, in no order."""
    for n in range(0, len(operations), _WRITES):
        await collection.bulk_write(operations[n : n + _WRITES], ordered=False)
