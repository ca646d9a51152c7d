"""What MongoDB holds of one mapping: its documents, and what the system keeps beside them.

Each part has a module of its own; here they are put together, with what takes several of them. Beside the mapping's own
collection, its database holds `sync_tombstones`, `sync_log`, `sync_dead_letters`, `sync_audits`, `sync_rewinds` and
`sync_parked`.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Dict

from motor.motor_asyncio import AsyncIOMotorClient

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import Stored
from gears.in_mongo.client import Document, database_of
from gears.in_mongo.collection.set_up import SetUp
from gears.in_mongo.dead_letters import DeadLetters
from gears.in_mongo.documents import AT_ONCE, RAW, Documents, batched
from gears.in_mongo.log.batch_log import Log
from gears.in_mongo.log.batches import Logged
from gears.in_mongo.reports.kept_reports import Reports
from gears.in_mongo.tombstones import Tombstones
from gears.in_mongo.version_filter import Filters
from gears.in_mongo.writing.writer import Writer


class Store:
    """One mapping's documents in MongoDB, and what the system keeps beside them.

    Args:
        client: a client.
        mapping: the mapping.

    Attributes:
        mapping: the mapping.
        documents: its documents.
        tombstones: its deletes.
        log: its latest batches, and the term.
        dead_letters: its refused states.
        reports: what audits found, and what Redis was given back.
        set_up: whether all this can be kept.
        writer: commits batches.
    """

    def __init__(self, client: "AsyncIOMotorClient[Document]", mapping: Mapping) -> None:
        self.mapping = mapping
        database, filters = database_of(client, mapping), Filters(mapping)
        documents = database[mapping.collection].with_options(RAW)
        tombstones, dead_letters = database["sync_tombstones"], database["sync_dead_letters"]
        self.documents = Documents(documents, mapping, filters)
        self.tombstones = Tombstones(tombstones, mapping)
        self.log = Log(client, mapping)
        self.dead_letters = DeadLetters(dead_letters, mapping)
        self.reports = Reports(database["sync_audits"], database["sync_rewinds"], mapping)
        self.set_up = SetUp(documents, tombstones, dead_letters, mapping, filters)
        self.writer = Writer(self.documents, database["sync_parked"], self.tombstones, self.log)

    async def find_alive(self, document_id: str) -> Stored | None:
        """The stored document with this id; None also if it was deleted since.

        That is a late committer's, which will be deleted again.
        """
        stored = await self.documents.find(document_id)
        if stored is None or not stored.version:
            return stored
        deleted = await self.tombstones.versions([stored.id])
        return stored if deleted.get(stored.id, -1) < stored.version else None

    async def fence_off(self, versions: Dict[str, int], held: Dict[str, int]) -> None:
        """Have nothing that is older than these versions replace what is held of documents, or that nothing is.

        Args:
            versions: for each document's id, the version that what is held of it gets, unless that is newer.
            held: the versions of those that are held, or of their deletes; what has changed since stays as it is.
        """
        await self.documents.fence_off(versions, held)
        await self.tombstones.fence_off(versions, held)

    async def set_version(self, document_id: str, held: int, version: int) -> None:
        """Give what MongoDB holds of a document, or of its delete, another version, if it is still this one.

        A delete of before, which a document that came from elsewhere has survived, stays older than that.
        """
        await self.tombstones.keep_below(document_id, version, held=held)
        await self.documents.set_version(document_id, held, version)
        await self.tombstones.set_versions([document_id], held, version)

    async def set_versions(self, held: Dict[str, int], version: int) -> None:
        """Give what MongoDB holds of documents, or of their deletes, this version, if it is still that one.

        What is under way to MongoDB doesn't replace it any more then.
        """
        by_version: dict[int, list[str]] = {}
        for document_id, at in held.items():
            by_version.setdefault(at, []).append(document_id)
        for at, ids in by_version.items():
            for some in batched(ids, AT_ONCE):
                await self.documents.set_versions(some, at, version)
                await self.tombstones.set_versions(some, at, version)

    async def has_come(self, batch: Logged) -> bool:
        """Whether all that a batch writes, deletes or refuses is there, or newer; it may have come without."""
        if batch.ids is None:
            return False
        for start in range(0, len(batch.ids), AT_ONCE):
            some = batch.ids[start : start + AT_ONCE]
            stored = await self.documents.versions(some)
            missing = {document_id for document_id in some if stored.get(document_id, -1) < batch.version}
            for document_id, version in (await self.tombstones.versions(missing)).items():
                if version >= batch.version:
                    missing.discard(document_id)
            if missing:
                return False
        return True

    async def above(self, ids: Iterable[str], version: int) -> tuple[dict[str, Stored], dict[str, int]]:
        """Of these documents, those that are stored at a higher version than this, and at which others were deleted."""
        ids = list(ids)
        found = await self.documents.find_many(ids)
        deleted = await self.tombstones.versions(ids)
        documents = {i: stored for i, stored in found.items() if not 0 < stored.version <= deleted.get(i, -1)}
        above = {i: stored for i, stored in documents.items() if stored.version > version}
        return above, {i: at for i, at in deleted.items() if at > version and i not in documents}

    async def count_above(self, version: int) -> tuple[int, int] | None:
        """How many documents, and how many tombstones, have a higher version than this.

        None where the log doesn't reach back so far: to look at all there is would take too long.
        """
        ids = await self.log.ids_above(version)
        if ids is None:
            return None
        counts = [0, 0]
        for start in range(0, len(ids), AT_ONCE):
            stored, deleted = await self.above(ids[start : start + AT_ONCE], version)
            counts[0] += len(stored)
            counts[1] += len(deleted)
        return counts[0], counts[1]
