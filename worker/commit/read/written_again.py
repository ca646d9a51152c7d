"""Which keys are written again further on in the sync stream than the committer has come."""

from typing import Any

from gears.contract.entries import BACKFILL, EXPIRE, FILL, decode_entry
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, EntryId
from gears.in_redis.client import Redis

_PAGE = 1000


class Ahead:
    """Reads the stream ahead, each entry once however often it is asked.

    Args:
        redis: client with replies as bytes.
        names: the mapping's names.
    """

    def __init__(self, redis: Redis, names: Names) -> None:
        self._redis = redis
        self._names = names
        self._newest: dict[bytes, EntryId] = {}
        self.seen = ZERO
        """The last entry that was read."""

    async def look(self, last: EntryId) -> None:
        """Read on to the end of the stream.

        Args:
            last: the last entry of the batch that is being committed; what comes before is forgotten.
        """
        if self.seen <= last:
            self._newest.clear()
            self.seen = last
        more = True
        while more:
            page: Any = await self._redis.xrange(self._names.stream, f"({self.seen}", count=_PAGE)
            for entry in (decode_entry(entry_id, fields) for entry_id, fields in page):
                self.seen = entry.id
                if entry.event not in (FILL, BACKFILL, EXPIRE):
                    self._newest[entry.key] = entry.id
            more = len(page) == _PAGE

    def written(self, key: bytes, last: EntryId) -> bool:
        """Whether the key is written after this entry, as far as was read."""
        return self._newest.get(key, ZERO) > last
