"""What giving back asks of MongoDB: what it holds that Redis has forgotten."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict

from bson import Int64
from pymongo.errors import OperationFailure

from gears.contract.write_tokens import Token
from gears.documents.mongo_form import Stored
from gears.in_mongo.audit_store import AuditStore, batched
from gears.in_mongo.batch_log import Logged
from gears.in_mongo.errors.what_codes_mean import Meaning, meaning_of
from gears.progress.given_back import RewindReport
from gears.progress.refusals import REMEMBERED_REFUSALS, Refusal

_LOOK_UP = 100


class GiveBackStore(AuditStore):
    """A `Store` for the committer, which gives Redis back what it has forgotten."""

    async def has_come(self, batch: Logged) -> bool:
        """Whether all that a batch writes, deletes or refuses is there, or newer; it may have come without."""
        if batch.ids is None:
            return False
        for start in range(0, len(batch.ids), _LOOK_UP):
            some = batch.ids[start : start + _LOOK_UP]
            stored = await self.versions(some)
            missing = {document_id for document_id in some if stored.get(document_id, -1) < batch.version}
            for document_id, version in (await self.deleted(missing)).items():
                if version >= batch.version:
                    missing.discard(document_id)
            if missing:
                return False
        return True

    async def above(self, ids: Iterable[str], version: int) -> tuple[dict[str, Stored], dict[str, int]]:
        """Of these documents, those that are stored at a higher version than this, and at which others were deleted."""
        ids = list(ids)
        found = await self.find_many(ids)
        deleted = await self.deleted(ids)
        documents = {i: stored for i, stored in found.items() if not 0 < stored.version <= deleted.get(i, -1)}
        above = {i: stored for i, stored in documents.items() if stored.version > version}
        return above, {i: at for i, at in deleted.items() if at > version and i not in documents}

    async def set_versions(self, held: Dict[str, int], version: int) -> None:
        """Give what MongoDB holds of documents, or of their deletes, this version, if it is still that one.

        What is under way to MongoDB doesn't replace it any more then.
        """
        by_version: dict[int, list[str]] = {}
        for document_id, at in held.items():
            by_version.setdefault(at, []).append(document_id)
        given = {"$set": {"_sync.v": Int64(version)}}
        for at, ids in by_version.items():
            for some in batched(ids, _LOOK_UP):
                exactly = self._filters.all_exactly(some, at)
                try:
                    await self._documents.update_many(exactly, given, collation=await self.simple())
                except OperationFailure as error:
                    if meaning_of(error.code) not in (Meaning.DOCUMENT, Meaning.DUPLICATE):
                        raise
                    one_by_one = (self._filters.raised(self._filters.exactly(i, at), version) for i in some)
                    await self._raise_versions(list(one_by_one))
                buried = {"_id": {"$in": [self.mapping.key(i) for i in some]}, "v": Int64(at)}
                await self._tombstones.update_many(buried, {"$set": {"v": Int64(version)}})

    async def count_above(self, version: int) -> tuple[int, int] | None:
        """How many documents, and how many tombstones, have a higher version than this.

        None where the log doesn't reach back so far: to look at all there is would take too long.
        """
        ids = await self.log.ids_above(version)
        if ids is None:
            return None
        counts = [0, 0]
        for start in range(0, len(ids), _LOOK_UP):
            stored, deleted = await self.above(ids[start : start + _LOOK_UP], version)
            counts[0] += len(stored)
            counts[1] += len(deleted)
        return counts[0], counts[1]

    async def keep_rewind(self, report: RewindReport) -> None:
        """Keep this report; a loss between the same two batches is the same one."""
        found = {"_id": f"{report.mapping} {report.watermark} {report.checkpoint}"}
        seen = {"found_at": report.found_at}
        known = report.model_dump(exclude={"found_at"})
        await self._rewinds.update_one(found, {"$setOnInsert": seen, "$set": known}, upsert=True)

    async def refused_above(self, version: int) -> Sequence[Refusal]:
        """The latest refused entries of states with a higher version than this, each with the reason."""
        above = {"mapping": self.mapping.prefix, "version": {"$gt": Int64(version)}}
        latest: list[Refusal] = []
        async for letter in self._dead_letters.find(above, {"entries": 1, "reason": 1}).sort("version", -1):
            latest += [(Token.parse(token), letter["reason"]) for token in letter.get("entries", ())]
            if len(latest) >= REMEMBERED_REFUSALS:
                break
        return latest
