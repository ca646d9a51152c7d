"""Refusals and stale fills: Redis goes back to what MongoDB holds."""

from collections.abc import Sequence

import structlog

from gears.document import decode, to_text, version_of
from gears.engines import Engine
from gears.errors import RedisRefused, Refused
from gears.mongo import DeadLetter, Store
from gears.redis import Redis
from gears.refusals import record_refusals
from gears.stream import EntryId, Names
from worker.plan import Refusal, Verify

log = structlog.get_logger()


async def refuse(redis: Redis, engine: Engine, store: Store, refusals: Sequence[Refusal]) -> dict[EntryId, str]:
    """Set refused states aside: keep them as dead letters, remember the refusal, roll Redis back.

    In this order, so that a committer that stops halfway leaves its successor enough to tell the writers the truth.
    Doing it again changes nothing.

    Returns:
        The refused entries with their reasons.

    Raises:
        MongoError, RedisError: do it again.
    """
    await store.keep_dead_letters([_dead_letter(refusal) for refusal in refusals])
    entries = {entry_id: refusal.reason for refusal in refusals for entry_id in refusal.entries.ids}
    await record_refusals(redis, Names(engine.mapping.prefix), entries.items())
    for refusal in refusals:
        log.warning("refused", key=repr(refusal.entries.key)[1:], reason=refusal.reason)
        if refusal.seen is None:
            continue
        try:
            document_id = engine.mapping.id_of(refusal.entries.key)
        except Refused:
            await _delete(redis, refusal.entries.key)  # MongoDB can't hold anything under such a key
        else:
            await _give_back(engine, store, document_id, refusal.seen)
    return entries


async def restore(engine: Engine, store: Store, checks: Sequence[Verify]) -> None:
    """Where Redis was given a document that MongoDB has replaced since, give it the present one."""
    held = await store.versions(check.document_id for check in checks)
    for check in checks:
        if check.seen is not None and held.get(check.document_id, 0) != check.entries.filled_from:
            await _give_back(engine, store, check.document_id, check.seen)


async def _delete(redis: Redis, key: bytes) -> None:
    """Delete a key in a MULTI, since RedisGears 1.x holds a plain DEL until the worker, this one, has committed it."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(key)
        await pipeline.execute()


async def _give_back(engine: Engine, store: Store, document_id: str, seen: bytes) -> None:
    stored = await store.find(document_id)
    document = None if stored is None else to_text(decode(stored))
    version = 0 if stored is None else version_of(stored)
    try:
        await engine.roll_back(document_id, seen, document, version=version)
    except RedisRefused as error:
        log.error("Redis refused a roll-back", key=engine.mapping.key(document_id), error=str(error))


def _dead_letter(refusal: Refusal) -> DeadLetter:
    return DeadLetter(refusal.entries.key, refusal.entries.version, refusal.reason, refusal.seen or b"")
