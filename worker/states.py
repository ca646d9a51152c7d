"""Reading the present states of keys."""

from collections.abc import Sequence

from gears.redis import Redis
from gears.stream import DELETE_EVENTS, EntryId, Names
from worker.plan import Gone, KeyEntries, State

JSON_TYPE = b"ReJSON-RL"


READ_BYTES = 32 * 1024 * 1024
"""How much of documents is read at a time, the last one not counted."""


async def readable(redis: Redis, keys: Sequence[bytes]) -> int:
    """How many of these keys, from the first on, to read at a time; one at least."""
    if len(keys) < 2:
        return len(keys)
    async with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.execute_command("JSON.DEBUG", "MEMORY", key)
        sizes = await pipeline.execute(raise_on_error=False)
    total = 0
    for n, size in enumerate(sizes):
        total += size if isinstance(size, int) else 0  # another type has none
        if total > READ_BYTES:
            return max(1, n)
    return len(keys)


async def read_states(redis: Redis, names: Names, keys: Sequence[KeyEntries]) -> dict[bytes, State]:
    """The present state of each key: one round trip, and a second one for those without a document."""
    if not keys:
        return {}
    documents = await redis.execute_command("JSON.MGET", *(entries.key for entries in keys), "$")
    states: dict[bytes, State] = {}
    missing = []
    for entries, document in zip(keys, documents, strict=True):
        if document is None:
            missing.append(entries)
        else:
            states[entries.key] = document[1:-1]
    return states | await _explain(redis, names, missing) if missing else states


async def _explain(redis: Redis, names: Names, keys: Sequence[KeyEntries]) -> dict[bytes, State]:
    """Read again, atomically with what tells a deleted key from a lost one."""
    prefix = len(names.prefix) + 1
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("JSON.MGET", *(entries.key for entries in keys), "$")
        for entries in keys:
            pipeline.type(entries.key)
            pipeline.get(names.gone.encode() + entries.key[prefix:])
        documents, *rest = await pipeline.execute()
    return {
        entries.key: _state(entries, document, kind, mark)
        for entries, document, kind, mark in zip(keys, documents, rest[::2], rest[1::2], strict=True)
    }


def _state(entries: KeyEntries, document: bytes | None, kind: bytes, mark: bytes | None) -> State:
    if document is not None:
        return document[1:-1]
    if kind not in (b"none", JSON_TYPE):
        return Gone.FOREIGN
    deleted_later = mark is not None and EntryId.parse(mark) >= entries.ids[-1]
    return Gone.DELETED if deleted_later or entries.last_event in DELETE_EVENTS else Gone.LOST
