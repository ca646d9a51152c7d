"""Which keys look different at a glance, so that they are worth a proof: see `worker.audit.prove_drift`."""

from collections.abc import Sequence
from typing import Any

from gears.contract.mapping import Mapping
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.compare import look_equal
from worker.audit.prove_drift import with_ids
from worker.readable import readable


async def suspects(redis: Redis, store: Store, mapping: Mapping, keys: Sequence[bytes]) -> list[bytes]:
    """Those of these keys that look different, of which a part is read at a time.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        mapping: the mapping.
        keys: some hundreds at most.

    Raises:
        MongoError, RedisError, RedisAway, OutcomeUnknown: a server is away.
    """
    found: list[bytes] = []
    while keys:
        size = await readable(redis, keys)
        found += await _different(redis, store, mapping, keys[:size])
        keys = keys[size:]
    return found


async def _different(redis: Redis, store: Store, mapping: Mapping, keys: Sequence[bytes]) -> list[bytes]:
    texts: Any = await redis.execute_command("JSON.MGET", *keys, "$")
    ids = dict(with_ids(mapping, keys))
    stored = await store.documents.find_many(document_id for document_id in ids.values() if document_id is not None)
    return [
        key
        for key, text in zip(keys, texts, strict=True)
        if not await look_equal(mapping, text, stored.get(ids[key] or ""))
    ]
