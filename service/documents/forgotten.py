"""What Redis may have forgotten: until a worker has looked, MongoDB may know more of a document than Redis holds."""

from gears.contract.entries import BACKFILL
from gears.contract.mongo_form import Stored, text_of
from gears.contract.redis_names import Names, life_of_memory
from gears.contract.version import highest
from gears.in_mongo.log.batches import Acked, Head
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis, read_at_once
from gears.progress.set_aside_entries import read_aside
from gears.progress.waiting_entries import waiting_of
from gears.progress.written_after import WrittenAfter


async def not_older(redis: Redis, store: Store, document_id: str, text: bytes | None) -> bytes | None:
    """A document as Redis holds it, or as it was acknowledged in a memory that Redis has lost.

    The latter is what MongoDB holds, if its version is above all that Redis knows to be acknowledged, and no write
    waits that came after it.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        document_id: the document's id.
        text: what Redis holds; None for nothing.

    Returns:
        JSON text; None where there is no document, or where Redis lacks one that may be cold.

    Raises:
        MongoError, RedisError: a server is away.
    """
    names = Names(store.mapping.prefix)
    replication, life, known = await read_at_once(
        redis, ("INFO", "replication"), ("GET", names.life), ("GET", names.acked)
    )
    acked = Acked.parse(known).version
    head = await store.log.head()
    version, _ = await _held(store, document_id, head)
    if version <= acked:
        return text
    present = life_of_memory(life, replication)
    if await _is_written_after(redis, store, names, document_id, version, present, head):
        return text
    version, stored = await _held(store, document_id, head)  # what waited may have been committed meanwhile
    if version <= acked:
        return text
    return None if stored is None else await text_of(store.mapping, stored)


async def _held(store: Store, document_id: str, head: Head) -> tuple[int, Stored | None]:
    """The version of what MongoDB holds, and the document; None where the version is its delete's."""
    stored = await store.documents.find(document_id)
    deleted = (await store.tombstones.versions([document_id])).get(document_id, 0)
    version = stored.version if stored is not None and head.believes(stored.version) else 0
    if deleted >= version and head.believes(deleted) and (stored is None or version):
        return deleted, None
    return version, stored


async def _is_written_after(
    redis: Redis, store: Store, names: Names, document_id: str, version: int, present: str, head: Head
) -> bool:
    """Whether a write to the key waits that came after what MongoDB holds with this version, as far as is known."""
    key = store.mapping.key(document_id)
    batches = await store.log.next_batches(above=version - 1, upto=highest(head.term), most=1)
    if not batches:
        return True
    waiting = await waiting_of(redis, names, key)
    aside = [entry for entry in (await read_aside(redis, names)).values() if entry.key == key.encode()]
    after = WrittenAfter(present, head.lives)
    newest = batches[0][1].newest
    return not waiting.complete or any(
        after.comes_after(entry, newest) for entry in (*waiting.entries, *aside) if entry.event != BACKFILL
    )
