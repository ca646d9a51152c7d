"""Warming: Redis is given every document that only MongoDB holds, those of the latest batches first.

Each is a fill, as when a document is read through: it raises no version and commits nothing; the committer verifies it.
A key that is there, or written to meanwhile, is left alone, so that doing it again goes on where it was interrupted.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import anyio

from gears.audit_store import AuditStore, batched
from gears.backlog import last_entry
from gears.documents.stored import Stored, text_of
from gears.engines import Engine
from gears.redis import Redis
from gears.stream import Names
from worker.committed import wait_committed

_AT_ONCE = 100
_ATTEMPTS = 3
_MOST_NEWEST = 100_000
"""How many of the newest documents come first."""


@dataclass(slots=True)
class Restored:
    """What became of the documents.

    Args:
        given: how many were given to Redis.
        present: how many keys were there.
        left: how many were not given, since they were being written to or deleted.
    """

    given: int = 0
    present: int = 0
    left: int = 0


class Restore:
    """Warms one mapping.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        patience: seconds without any commit after which commits are held up.
        on_progress: called with the mapping's prefix, the documents done and about how many there are.
    """

    def __init__(
        self,
        redis: Redis,
        store: AuditStore,
        engine: Engine,
        *,
        patience: float,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._redis = redis
        self._store = store
        self._engine = engine
        self._mapping = engine.mapping
        self._patience = patience
        self._on_progress = on_progress
        self._restored = Restored()

    async def run(self) -> Restored:
        """Give Redis every cold document.

        Raises, alone or in a group:
            CouldNotCompare: the committer verifies nothing.
            MongoError, RedisError, RedisAway, OutcomeUnknown: a server is away.
            CaptureMissing: the recipe isn't installed.
            RedisRefused: Redis is out of memory.
        """
        total, done = await self._store.estimated_count(), 0
        async for ids in self._in_order():
            await self._restore(ids)
            done += len(ids)
            self._on_progress(self._mapping.prefix, done, max(done, total))
        return self._restored

    async def _in_order(self) -> AsyncIterator[Sequence[str]]:
        """The ids of all documents, some at a time: the newest first, as far as the log tells, then the others."""
        newest: dict[str, None] = {}
        async for ids in self._store.log.newest_ids():
            newest.update(dict.fromkeys(ids))
            if len(newest) >= _MOST_NEWEST:
                break
        for some in batched(newest, _AT_ONCE):
            yield some
        async for page in self._store.scan():
            for some in batched([stored.id for stored in page if stored.id not in newest], _AT_ONCE):
                yield some

    async def _restore(self, ids: Sequence[str]) -> None:
        absent = await self._absent(ids)
        self._restored.present += len(ids) - len(absent)
        for _ in range(_ATTEMPTS):
            if not absent:
                return
            given, cold = await self._fill(absent)
            self._restored.given += given
            newest = await last_entry(self._redis, Names(self._mapping.prefix))
            await wait_committed(self._redis, self._mapping, newest, patience=self._patience)
            absent = await self._absent(cold)
        self._restored.left += len(set(absent) & await self._store.stored(absent))

    async def _absent(self, ids: Sequence[str]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for document_id in ids:
                pipeline.exists(self._mapping.key(document_id))
            return [i for i, exists in zip(ids, await pipeline.execute(), strict=True) if not exists]

    async def _fill(self, ids: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Fill these keys; returns how many were filled, and those that are still to be looked at."""
        tickets: dict[str, bytes] = {}
        filled = 0

        async def get_ticket(document_id: str) -> None:
            ticket = await self._engine.ticket(document_id)
            if ticket is not None:
                tickets[document_id] = ticket

        async def fill(document_id: str, document: Stored) -> None:
            nonlocal filled
            text = await text_of(self._mapping, document)
            result = await self._engine.fill(document_id, text, version=document.version, ticket=tickets[document_id])
            filled += result is not None

        async with anyio.create_task_group() as tasks:
            for document_id in ids:
                tasks.start_soon(get_ticket, document_id)
        stored = await self._store.find_many(list(tickets))
        deleted = await self._store.tombstones(list(tickets))
        async with anyio.create_task_group() as tasks:
            for document_id, document in stored.items():
                if not 0 < document.version <= deleted.get(document_id, -1):  # else it was deleted, and is back
                    tasks.start_soon(fill, document_id, document)
        return filled, [i for i in ids if i in stored or i not in tickets]
