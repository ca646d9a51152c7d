"""MongoDB holds less than Redis knows to be acknowledged: somebody has put a backup back.

Here Redis is the one that remembers. Every key whose document MongoDB doesn't hold is put on the sync stream. A delete
that MongoDB has forgotten can't be told from a cold document: what the backup holds and Redis doesn't is kept.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import structlog

from gears.contract.entries import BACKFILL
from gears.engines import Engine
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.failpoint import reached
from gears.progress.compare import look_equal
from worker.audit.prove_drift import with_ids
from worker.readable import readable

_PAGE, _AT_ONCE = 1000, 100

log = structlog.get_logger()


async def bring_what_is_missing(redis: Redis, engine: Engine, store: Store, *, life: str) -> int:
    """Capture every key whose document MongoDB doesn't hold; returns how many. In another life, nothing is captured.

    Raises:
        MongoError, RedisError: it isn't complete; doing it again does no harm.
    """
    brought, cursor = 0, 0
    while True:
        found: Any = await redis.scan(cursor, match=f"{engine.mapping.prefix}:*", count=_PAGE)
        cursor, keys = found
        keys = list(dict.fromkeys(keys))
        while keys:
            size = await readable(redis, keys[:_AT_ONCE])
            some, keys = keys[:size], keys[size:]
            different = await _different(redis, engine, store, some)
            async with anyio.create_task_group() as tasks:
                for key in different:
                    tasks.start_soon(partial(engine.backfill, key, BACKFILL, life=life))
            brought += len(different)
            reached("missing documents captured")
        if cursor == 0:
            return brought


async def _different(redis: Redis, engine: Engine, store: Store, keys: Sequence[bytes]) -> list[bytes]:
    texts: Any = await redis.execute_command("JSON.MGET", *keys, "$")
    ids = dict(with_ids(engine.mapping, keys))
    stored = await store.documents.find_many(document_id for document_id in ids.values() if document_id is not None)
    return [
        key
        for key, text in zip(keys, texts, strict=True)
        if text is not None and not await look_equal(engine.mapping, text, stored.get(ids[key] or ""))
    ]
