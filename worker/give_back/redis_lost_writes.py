"""Redis has forgotten what was acknowledged: it is given back what MongoDB holds.

That is every document and every delete with a version above the last batch that Redis knows of, save for keys that were
written since: their entries are on the stream. The log names the documents. Where it doesn't reach back so far, all
keys that Redis holds are looked at; what it doesn't hold is cold. Where the setting says so, somebody decides first.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Mapping as Dict
from datetime import UTC, datetime
from typing import Any

import anyio

from gears.contract.mongo_form import Stored, text_of
from gears.contract.redis_names import Names
from gears.contract.version import shown, version_of
from gears.engines import Engine
from gears.errors import Refused
from gears.in_mongo.log.batches import Acked, Head, Logged
from gears.in_mongo.reports.given_back_report import RewindReport
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.failpoint import reached
from gears.progress.refusals import record_refusals
from worker.give_back.newer_writes import NewerWrites
from worker.lease.lease import Lease
from worker.lease.lease_and_life import Mine

_PAGE, _AT_ONCE = 1000, 100
_POLL = 0.5


class GiveBack:
    """Gives Redis back what it has forgotten; nothing may be committed meanwhile.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        mine: what the committer relies on.
        acked: what Redis knows to be acknowledged; what is above it is given back.
        newest: the newest batch.
        head: what is known beside the batches.
    """

    def __init__(
        self,
        redis: Redis,
        engine: Engine,
        store: Store,
        mine: Mine,
        *,
        acked: Acked,
        newest: Logged,
        head: Head,
    ) -> None:
        self._redis = redis
        self._engine = engine
        self._store = store
        self._mine = mine
        self._acked = acked
        self._newest = newest
        self._head = head
        self._names = Names(engine.mapping.prefix)
        self.partial = False
        """Whether what Redis doesn't hold was left to be read through, or warmed."""
        self._report = RewindReport(
            mapping=engine.mapping.prefix,
            found_at=datetime.now(UTC),
            watermark=shown(acked.version),
            checkpoint=shown(newest.version),
        )

    async def allowed(self, blocked: Callable[[str], None]) -> None:
        """Say what would be given back, keep that in MongoDB, and return when somebody has decided for it.

        Args:
            blocked: told why nothing is committed meanwhile.

        Raises:
            MongoError, RedisError: do it again.
        """
        report, counts = self._report, await self._store.count_above(self._acked.version)
        if counts is not None:
            report.documents, report.deletes = counts
            what = f"{report.documents:,} documents and {report.deletes:,} deletes, which MongoDB has"
        else:
            report.documents = await self._store.documents.estimated_count()
            what = f"what it lacks of some {report.documents:,} documents that MongoDB has"
        await self._store.reports.keep_rewind(report)
        name = self._names.rewind
        blocked(
            f"Redis has forgotten what was committed after {report.watermark}, up to {report.checkpoint}: {what}; to "
            f"have them given back: redis-cli SET '{name}' restore"
        )
        await decided(self._redis, self._names)

    async def run(self, lease: Lease) -> int:
        """Give back; doing it again changes nothing.

        Args:
            lease: under which this is done.

        Returns:
            How many keys were given back.

        Raises:
            LeaseLost: another committer is at work.
            Rewound: Redis has forgotten something meanwhile.
            MongoError, RedisError: it isn't complete; do it again.
        """
        above = self._acked.version
        newest_of = await self._store.log.newest_of()
        newer = NewerWrites(self._redis, self._names, self._mine.life, newest_of, self._newest, self._head.lives)
        await record_refusals(self._redis, self._names, await self._store.dead_letters.refused_above(above))
        report = self._report
        report.documents = report.deletes = report.restored = 0
        async for ids in self._forgotten():
            documents, deleted = await self._store.above(ids, above)
            report.documents += len(documents)
            report.deletes += len(deleted)
            held = {i: stored.version for i, stored in documents.items()} | deleted
            report.restored += await self._give_back(documents, held, newer, lease)
            reached("given back")
            await self._store.set_versions(held, version_of(self._head.term, 0))
        report.restored_at = datetime.now(UTC)
        await self._store.reports.keep_rewind(report)
        return report.restored

    async def _forgotten(self) -> AsyncIterator[Sequence[str]]:
        """The ids of documents of which Redis may have forgotten what was acknowledged, some at a time."""
        ids = await self._store.log.ids_above(self._acked.version)
        if ids is not None:
            for start in range(0, len(ids), _AT_ONCE):
                yield ids[start : start + _AT_ONCE]
            return
        self.partial, cursor = True, 0
        while True:
            found: Any = await self._redis.scan(cursor, match=f"{self._names.prefix}:*", count=_PAGE)
            cursor, keys = found
            ids = []
            for key in dict.fromkeys(keys):
                try:
                    ids.append(self._engine.mapping.id_of(key))
                except Refused:
                    continue
            if ids:
                yield ids
            if cursor == 0:
                return

    async def _give_back(
        self, documents: Dict[str, Stored], held: Dict[str, int], newer: NewerWrites, lease: Lease
    ) -> int:
        lease.check()
        await newer.read_on()
        given = 0

        async def give(document_id: str, stored: Stored | None) -> None:
            nonlocal given
            text = None if stored is None else await text_of(self._engine.mapping, stored)
            mine = self._mine
            done = await self._engine.give_back(document_id, text, since=newer.seen, token=mine.lease, life=mine.life)
            given += done

        async with anyio.create_task_group() as tasks:
            for document_id, version in held.items():
                if not newer.has(self._engine.mapping.key(document_id).encode(), version):
                    tasks.start_soon(give, document_id, documents.get(document_id))
        return given


async def decided(redis: Redis, names: Names) -> None:
    """Return when somebody has decided that what is lost is given back."""
    while True:
        if await redis.getdel(names.rewind) == b"restore":
            return
        await anyio.sleep(_POLL)
