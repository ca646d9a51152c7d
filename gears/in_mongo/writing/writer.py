"""Committing a batch: tombstones first, then documents and log."""

import anyio
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import PyMongoError

from gears.contract.changes import Remove, Upsert
from gears.in_mongo.client import Document
from gears.in_mongo.documents import Documents
from gears.in_mongo.errors.describe import NotAllWritten
from gears.in_mongo.log.batch_log import Log
from gears.in_mongo.log.batches import Logged
from gears.in_mongo.tombstones import Tombstones
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome
from gears.in_mongo.writing.blockers import Blockers
from gears.in_mongo.writing.bulk_write import BulkWrite
from gears.in_mongo.writing.exchange import Exchange
from gears.in_mongo.writing.resolve_waits import Resolver
from gears.process.failpoint import reached


class Writer:
    """Commits the batches of one mapping.

    Args:
        documents: the mapping's.
        parked: where documents are kept that are taken out for a moment.
        tombstones: remembers what is deleted.
        log: remembers batches, and tells which versions are ours.
    """

    def __init__(
        self,
        documents: Documents,
        parked: AsyncIOMotorCollection[Document],
        tombstones: Tombstones,
        log: Log,
    ) -> None:
        self._tombstones = tombstones
        self._log = log
        self._bulk = BulkWrite(documents, tombstones, log)
        blockers = Blockers(documents)
        self._exchange = Exchange(documents, parked, tombstones, self._bulk, blockers)
        self._resolver = Resolver(documents, self._bulk, blockers, self._exchange)

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
            await self._tombstones.bury(removed)
        reached("tombstones written")
        outcomes: list[Outcome] = []
        failures: list[PyMongoError] = []

        async def write_documents() -> None:
            try:
                outcomes.append(await self._write_documents(changes))
            except PyMongoError as error:
                failures.append(error)

        async def write_log() -> None:
            try:
                await self._log.add(batch)
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

    async def _write_documents(self, batch: Changes) -> Outcome:
        """First what stands by itself, then what waits, then what was renamed goes.

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
        if first and (stuck := await self._bulk.attempt(first, outcome)):
            await self._resolver.resolve(batch, stuck, outcome)
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
            await self._tombstones.bury(moved)
            await self._bulk.attempt(moved, outcome)
        others = batch.changes.keys() - batch.patient
        if others and others <= outcome.failed.keys():
            raise NotAllWritten(outcome.failed)
        return outcome

    async def unpark(self) -> None:
        """Put back what was taken out by a committer that stopped amid it."""
        await self._exchange.unpark()
