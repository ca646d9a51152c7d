"""`python -m worker restore`: Redis is given every document that only MongoDB holds, by whoever isn't the committer.

Each is a fill, as when a document is read through: it raises no version and commits nothing; the committer verifies it.
A key that is there, or written to meanwhile, is left alone, so that doing it again goes on where it was interrupted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from gears.contract.mongo_form import Stored, text_of
from gears.contract.redis_names import Names
from gears.engines import Engine
from gears.in_mongo.documents import batched
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.backlog import last_entry
from worker.audit.wait_until_committed import wait_committed
from worker.lead.warm import absent_of, in_order

_AT_ONCE = 100
_ATTEMPTS = 3


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
        store: Store,
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
        total, done = await self._store.documents.estimated_count(), 0
        async for ids in in_order(self._store):
            for some in batched(ids, _AT_ONCE):
                await self._restore(some)
            done += len(ids)
            self._on_progress(self._mapping.prefix, done, max(done, total))
        return self._restored

    async def _restore(self, ids: Sequence[str]) -> None:
        absent = await absent_of(self._redis, self._mapping, ids)
        self._restored.present += len(ids) - len(absent)
        for _ in range(_ATTEMPTS):
            if not absent:
                return
            given, cold = await self._fill(absent)
            self._restored.given += given
            newest = await last_entry(self._redis, Names(self._mapping.prefix))
            await wait_committed(self._redis, self._mapping, newest, patience=self._patience)
            absent = await absent_of(self._redis, self._mapping, cold)
        self._restored.left += len(set(absent) & await self._store.documents.stored(absent))

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
        stored = await self._store.documents.find_many(list(tickets))
        deleted = await self._store.tombstones.versions(list(tickets))
        async with anyio.create_task_group() as tasks:
            for document_id, document in stored.items():
                if not 0 < document.version <= deleted.get(document_id, -1):  # else it was deleted, and is back
                    tasks.start_soon(fill, document_id, document)
        return filled, [i for i in ids if i in stored or i not in tickets]
