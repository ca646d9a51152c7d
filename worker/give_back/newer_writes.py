"""Which keys were written after what MongoDB holds of them, as the entries on the sync stream tell."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from gears.contract.entries import BACKFILL, EXPIRE, FILL, Entry, decode_entry
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, Token
from gears.in_mongo.log.batches import Logged
from gears.in_redis.client import Redis
from gears.progress.written_after import WrittenAfter

_PAGE = 1000


class NewerWrites:
    """The writes that wait on a mapping's sync stream, against what MongoDB holds.

    Args:
        redis: client with replies as bytes.
        names: the mapping's names.
        life: the present life.
        newest_of: the versions of the batches in the log, in order, each with the newest entry that it knew.
        newest: the newest batch.
        lives: the lives that committers have met, in their order.
    """

    def __init__(
        self,
        redis: Redis,
        names: Names,
        life: str,
        newest_of: Sequence[tuple[int, Token]],
        newest: Logged,
        lives: Sequence[str],
    ) -> None:
        self._redis = redis
        self._names = names
        self._newest = newest
        self._newest_of = newest_of
        self._after = WrittenAfter(life, lives)
        self._written: dict[bytes, Entry] = {}
        self.seen = ZERO
        """The last entry that was read."""

    async def read_on(self) -> None:
        """Read on in the stream: when was each key written to last?"""
        while page := await self._read_stream():
            for entry in page:
                self.seen = entry.id
                if entry.event not in (FILL, BACKFILL, EXPIRE):
                    self._written[entry.key] = entry

    def has(self, key: bytes, version: int) -> bool:
        """Whether the key was written after what MongoDB holds of it with this version, as far as was read."""
        entry = self._written.get(key)
        return entry is not None and self._is_newer(entry, version)

    def _is_newer(self, entry: Entry, version: int) -> bool:
        """Whether an entry tells of a write that came after what MongoDB holds with a version, and not before."""
        n = bisect_left(self._newest_of, version, key=itemgetter(0))
        return self._after.comes_after(
            entry, self._newest_of[n][1] if n < len(self._newest_of) else self._newest.newest
        )

    async def _read_stream(self) -> list[Entry]:
        page: Any = await self._redis.xrange(self._names.stream, f"({self.seen}", count=_PAGE)
        return [decode_entry(entry_id, fields) for entry_id, fields in page]
