"""Warming: a worker that leads gives Redis all that only MongoDB holds, the documents of the latest batches first.

It says which keys were committed since MongoDB was read, and the stream which were written to and aren't committed yet;
all others are as MongoDB has them. So nothing of this is an entry, and nothing is committed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Mapping as Dict

import anyio

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import text_of
from gears.engines import Engine
from gears.in_mongo.documents import batched
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from worker.commit.term import Term

_AT_ONCE = 100
"""How many documents are read at a time, and given in one atomic step at most."""

_BYTES = 1024 * 1024
"""How large the latter may be together, the last one not counted."""

_MOST_NEWEST = 100_000
"""How many of the newest documents come first."""

_FIRST, _LONGEST = 0.005, 0.5
"""Seconds between two tries to give the same documents."""


class Warm:
    """Warms one mapping.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        term: the mapping's, in which a committer is at work in this process.
        on_progress: called with the documents done and about how many there are.
    """

    def __init__(
        self,
        redis: Redis,
        store: Store,
        engine: Engine,
        term: Term,
        *,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._redis = redis
        self._store = store
        self._engine = engine
        self._term = term
        self._on_progress = on_progress

    async def run(self) -> int:
        """Give Redis every cold document; returns how many.

        Raises, alone or in a group:
            LeaseLost, Rewound: another committer is at work, or Redis has forgotten something.
            MongoError, RedisError, RedisAway, OutcomeUnknown: a server is away.
            CaptureMissing: the recipe isn't installed.
            RedisRefused: Redis is out of memory.
        """
        total, done, given = await self._store.documents.estimated_count(), 0, 0
        try:
            async for ids in in_order(self._store):
                for some in batched(ids, _AT_ONCE):
                    given += await self._warm(some)
                    done += len(some)
                    self._on_progress(done, max(done, total))
        finally:
            self._term.committed_since = None
        return given

    async def _warm(self, ids: Sequence[str]) -> int:
        since = self._term.committed_since = set()
        cold = await absent_of(self._redis, self._engine.mapping, ids)
        stored = await self._store.documents.find_many(cold)
        deleted = await self._store.tombstones.versions(stored)
        given, size, texts = 0, 0, dict[str, bytes]()
        for document_id, document in stored.items():
            if 0 < document.version <= deleted.get(document_id, -1):
                continue  # it was deleted, and is back
            texts[document_id] = await text_of(self._engine.mapping, document)
            size += len(texts[document_id])
            if size > _BYTES:
                given += await self._give(texts, since)
                size, texts = 0, {}
        return given + (await self._give(texts, since) if texts else 0)

    async def _give(self, texts: Dict[str, bytes], since: set[bytes]) -> int:
        mapping, mine, pause = self._engine.mapping, self._term.mine, _FIRST
        while True:
            acked = str(self._term.acked)
            untouched = {i: text for i, text in texts.items() if mapping.key(i).encode() not in since}
            given = await self._engine.warm(untouched, acked=acked, token=mine.lease, life=mine.life)
            if given is not None:
                return given
            await anyio.sleep(pause)  # until less is written, or it is known here what was acknowledged
            pause = min(pause * 2, _LONGEST)


async def in_order(store: Store) -> AsyncIterator[Sequence[str]]:
    """The ids of all documents, some at a time: the newest first, as far as the log tells, then the others."""
    newest: dict[str, None] = {}
    async for ids in store.log.newest_ids():
        newest.update(dict.fromkeys(ids))
        if len(newest) >= _MOST_NEWEST:
            break
    yield list(newest)
    async for page in store.documents.scan():
        if others := [stored.id for stored in page if stored.id not in newest]:
            yield others


async def absent_of(redis: Redis, mapping: Mapping, ids: Sequence[str]) -> list[str]:
    """Those of these documents whose keys Redis doesn't hold."""
    async with redis.pipeline(transaction=False) as pipeline:
        for document_id in ids:
            pipeline.exists(mapping.key(document_id))
        return [i for i, exists in zip(ids, await pipeline.execute(), strict=True) if not exists]
