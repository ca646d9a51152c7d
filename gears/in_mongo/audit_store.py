"""What audits ask of MongoDB: all documents, some of them, and where reports are kept."""

from collections.abc import AsyncIterator, Iterable, Iterator
from collections.abc import Mapping as Dict
from itertools import islice
from typing import Any

import bson
from pymongo.errors import OperationFailure

from gears.documents.mongo_form import Stored
from gears.in_mongo.client import Document, within
from gears.in_mongo.dead_letters import MAX_BYTES, letter_key
from gears.in_mongo.store import RAW, Store
from gears.progress.audit_report import AuditReport

KEPT_AUDITS = 100
"""How many reports of audits are kept for each mapping."""

_SCAN_BATCH = 1000

_SCAN_TIMEOUT = 60.0
"""Seconds until a scan's next batch; servers that sort before they answer need some for the first."""

_LOOK_UP = 100
"""How many ids are asked for at once."""

_CURSOR_NOT_FOUND = 43


class AuditStore(Store):
    """A `Store` for audits."""

    async def estimated_count(self) -> int:
        """About how many documents are stored."""
        return await self._documents.estimated_document_count()

    async def scan(self) -> AsyncIterator[list[Stored]]:
        """All stored documents with ids of the mapping's type, by id, many at a time."""
        id_field, id_type = self.mapping.id_field, self.mapping.id_type
        above: Document = {"$gte": id_type.lowest}
        while True:
            cursor = (
                self._documents.find_raw_batches({id_field: above}, collation=await self.simple())
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
                if error.code != _CURSOR_NOT_FOUND:  # it was idle for too long: go on with another
                    raise
            finally:
                await cursor.close()

    async def find_many(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Those of these documents that are stored."""
        return {
            stored.id: stored
            for some in batched(ids, _LOOK_UP)
            for stored in self._read(
                await self._documents.find(self._any_of(some), collation=await self.simple()).to_list(None)
            )
        }

    async def stored(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids that are stored."""
        only_ids = {self.mapping.id_field: 1, "_id": self.mapping.id_field == "_id"}
        return {
            stored.id
            for some in batched(ids, _LOOK_UP)
            for stored in self._read(
                await self._documents.find(self._any_of(some), only_ids, collation=await self.simple()).to_list(None)
            )
        }

    def _any_of(self, ids: Iterable[str]) -> Document:
        return {self.mapping.id_field: {"$in": self._filters.values(ids)}}

    async def tombstones(self, ids: Iterable[str]) -> dict[str, int]:
        """The versions at which those of these ids that were ever deleted were deleted last."""
        prefix = len(self.mapping.key(""))
        return {
            found["_id"][prefix:]: int(found["v"])
            for some in batched(map(self.mapping.key, ids), _LOOK_UP)
            for found in await self._tombstones.find({"_id": {"$in": some}}).to_list(None)
        }

    async def refused(self, states: Dict[bytes, bytes]) -> dict[bytes, str]:
        """Those keys of which this very document was refused, each with the reason.

        Args:
            states: JSON text by key.
        """
        keys = {letter_key(key): key for key in states}
        reasons = {}
        for some in batched(keys, _LOOK_UP):
            async for letter in self._dead_letters.find({"key": {"$in": some}, "mapping": self.mapping.prefix}):
                key = keys[letter["key"]]
                if letter["document"] == states[key][:MAX_BYTES] and letter["bytes"] == len(states[key]):
                    reasons[key] = str(letter["reason"])
        return reasons

    async def keep_audit(self, report: AuditReport) -> None:
        """Keep this report, and the `KEPT_AUDITS` latest of this mapping."""
        await self._audits.insert_one(report.model_dump())
        mine = {"mapping": self.mapping.prefix}
        newest_first = self._audits.find(mine, {"started_at": 1}).sort("started_at", -1)
        for oldest in await newest_first.skip(KEPT_AUDITS).limit(1).to_list(1):
            await self._audits.delete_many({**mine, "started_at": {"$lte": oldest["started_at"]}})


def batched(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """These ids, so many at a time."""
    remaining = iter(ids)
    while some := list(islice(remaining, size)):
        yield some
