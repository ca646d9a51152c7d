"""What was kept before there were terms: one checkpoint in place of a log, and versions that were ids of entries."""

from motor.motor_asyncio import AsyncIOMotorCollection

from gears.contract.mapping import Mapping
from gears.contract.write_tokens import EntryId, Token
from gears.in_mongo.client import Document
from gears.in_mongo.log.batches import Acked, Logged


class Checkpoints:
    """One mapping's checkpoint.

    Args:
        collection: where they were kept.
        mapping: the mapping.
    """

    def __init__(self, collection: AsyncIOMotorCollection[Document], mapping: Mapping) -> None:
        self._collection = collection
        self._mine = {"_id": mapping.prefix}

    async def highest_version(self) -> int:
        """The highest version of before there were terms, as far as is known."""
        found = await self._collection.find_one(self._mine) or {}
        return max((int(found.get(name, 0)) for name in ("v", "newest", "reserved", "fence")), default=0)

    async def newest(self) -> Logged | None:
        """The newest batch of before there were terms; None when nothing was committed then."""
        found = await self._collection.find_one(self._mine)
        if found is None:
            return None
        committed = int(found["v"])
        newest, certain = (int(found.get(name, committed)) for name in ("newest", "certain"))
        upto, at_newest, before = (Token("", _id_before_terms(version)) for version in (committed, newest, certain))
        return Logged(newest, upto, at_newest, before, {"": upto.id})


def _id_before_terms(version: int) -> EntryId:
    """The entry id that was a version before there were terms."""
    return EntryId(version >> 20, version & (1 << 20) - 1)


def acked_before_terms(watermark: bytes | None) -> Acked:
    """What Redis knows to be acknowledged, as it was kept before there were terms: an entry's id, or nothing."""
    if not watermark:
        return Acked()
    entry_id = EntryId.parse(watermark)
    return Acked((entry_id.ms << 20) + entry_id.seq, Token("", entry_id))
