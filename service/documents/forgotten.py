"""What Redis may have forgotten: until a worker has looked, MongoDB may know more of a document than Redis holds."""

from typing import Any

from gears.contract.mongo_form import text_of
from gears.contract.redis_names import Names
from gears.in_mongo.log.batches import Acked
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.progress.set_aside_entries import read_aside
from gears.progress.waiting_entries import waiting_of


async def not_older(redis: Redis, store: Store, document_id: str, text: bytes) -> bytes | None:
    """A document that Redis holds, or what was acknowledged since in a memory that Redis has lost.

    That is what MongoDB holds, if its version is above all that Redis knows to be acknowledged. But a write that waits
    was made since, and stays.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        document_id: the document's id.
        text: what Redis holds.

    Returns:
        JSON text; None where the document was deleted.

    Raises:
        MongoError, RedisError: a server is away.
    """
    mapping = store.mapping
    names, key = Names(mapping.prefix), mapping.key(document_id)
    known: Any = await redis.get(names.acked)
    waiting = await waiting_of(redis, names, key)
    aside = await read_aside(redis, names)
    if waiting.tokens or not waiting.complete or any(entry.key == key.encode() for entry in aside.values()):
        return text
    stored = await store.documents.find(document_id)
    deleted = (await store.tombstones.versions([document_id])).get(document_id, 0)
    head = await store.log.head()
    version = stored.version if stored is not None and head.believes(stored.version) else 0
    acked = Acked.parse(known)
    if acked.version < deleted >= version and head.believes(deleted):
        return None
    return await text_of(mapping, stored) if stored is not None and version > acked.version else text
