"""Refusals and stale fills: Redis goes back to what MongoDB holds.

But not a key that is written again further on in the stream: a roll-back would undo that write too, whose entry then
told of a state that is gone. The batch with the key's last write decides.
"""

from collections.abc import Collection, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress

import anyio
import structlog
from redis.exceptions import WatchError

from gears.contract.changes import Upsert
from gears.contract.mongo_form import read_stored, text_of
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, EntryId, Token
from gears.engines import Engine
from gears.errors import RedisRefused, Refused
from gears.in_mongo.dead_letters import DeadLetter
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.failpoint import reached
from gears.progress.refusals import record_refusals
from worker.commit.read.decide import RefusedState, Verify
from worker.commit.read.written_again import Ahead
from worker.lease.lease_and_life import Mine
from worker.readable import JSON_TYPE

log = structlog.get_logger()


async def refuse(
    redis: Redis,
    engine: Engine,
    store: Store,
    refusals: Sequence[RefusedState],
    ahead: Ahead,
    mine: Mine,
    *,
    version: int,
    last: EntryId,
    unacked: Dict[int, EntryId],
) -> dict[Token, str]:
    """Set refused states aside: keep them as dead letters, remember the refusal, fence MongoDB off, roll Redis back.

    In this order, so that a committer that stops halfway leaves its successor enough to tell the writers the truth.
    Doing it again changes nothing.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        refusals: the refused states.
        ahead: tells of later writes.
        mine: what the committer relies on.
        version: the batch's.
        last: the last entry of the batch.
        unacked: versions of batches that were written and not acknowledged, each with the newest entry it knew of.

    Returns:
        The refused entries with their reasons; not those of states that were committed before the refused one came.

    Raises:
        MongoError, RedisError: do it again.
    """
    letters = [_dead_letter(refusal, version) for refusal in refusals if not refusal.moved]
    if letters:
        await store.dead_letters.keep(letters)
    reached("dead letters kept")
    versions = _versions(engine, refusals, version)
    held = await _held(store, versions)
    fences = await store.dead_letters.fenced_off(held)
    committed = {engine.mapping.key(i).encode(): version for i, version in held.items() if i not in fences}
    entries = {
        token: refusal.reason
        for refusal in refusals
        for token in refusal.entries.tokens
        if token.id > unacked.get(committed.get(refusal.entries.key, 0), ZERO)
    }
    await record_refusals(redis, Names(engine.mapping.prefix), entries.items())
    reached("refusals recorded")
    await store.fence_off(versions, held)  # a committer that was held up may have what is refused under way
    reached("fenced off")
    await ahead.look(last)
    for refusal in sorted(refusals, key=lambda refusal: not refusal.moved):  # what was moved is never nowhere
        log.warning("refused", key=repr(refusal.entries.key)[1:], reason=refusal.reason)
        if refusal.moved and not ahead.written(refusal.entries.key, last):
            await _roll_back_moved(engine, store, engine.mapping.id_of(refusal.entries.key), ahead, mine)
        if refusal.seen is None or ahead.written(refusal.entries.key, last):
            continue
        try:
            document_id = engine.mapping.id_of(refusal.entries.key)
        except Refused:
            await _delete(redis, refusal.entries.key, refusal.seen)  # MongoDB can't hold anything under such a key
        else:
            await _roll_back_to_stored(engine, store, document_id, refusal.seen, ahead, mine)
        reached("rolled back")
    return entries


async def move_back(engine: Engine, documents: Dict[str, bytes], ahead: Ahead, mine: Mine, *, last: EntryId) -> bool:
    """Give documents back the keys from which they were renamed, uncaptured.

    The batch is done again then, with them; what they were renamed to is refused in it as if it were a copy.

    Args:
        engine: the mapping's engine.
        documents: JSON texts, by the ids that they had.
        ahead: tells of later writes.
        mine: what the committer relies on.
        last: the last entry of the batch.

    Returns:
        Whether any was given back; not what is written further on in the stream.
    """
    await ahead.look(last)
    moved = False
    for document_id, text in documents.items():
        if not ahead.written(engine.mapping.key(document_id).encode(), last):
            moved |= await _put(engine, document_id, text, ahead, mine)
    reached("moved back")
    return moved


async def put_fills_right(
    engine: Engine, store: Store, checks: Sequence[Verify], ahead: Ahead, mine: Mine, *, last: EntryId
) -> None:
    """Where Redis was given a document that MongoDB has replaced since, give it the present one.

    Args:
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        checks: what Redis was given.
        ahead: tells of later writes.
        mine: what the committer relies on.
        last: the last entry of the batch.
    """
    held = await store.documents.versions(check.document_id for check in checks)
    stale = [check for check in checks if held.get(check.document_id, 0) != check.entries.filled_from]
    if stale:
        await ahead.look(last)
    for check in stale:
        if check.seen is not None and not ahead.written(check.entries.key, last):
            await _roll_back_to_stored(engine, store, check.document_id, check.seen, ahead, mine)
            reached("fill put right")


async def give_ids(
    engine: Engine, upserts: Sequence[tuple[Upsert, bytes]], ahead: Ahead, mine: Mine, *, last: EntryId
) -> None:
    """Where a document in Redis lacks its id, or has another one, give Redis what MongoDB has got.

    Args:
        engine: the mapping's engine.
        upserts: what has been committed, each with the JSON text that Redis held.
        ahead: tells of later writes.
        mine: what the committer relies on.
        last: the last entry of the batch.
    """
    mapping = engine.mapping

    async def give(upsert: Upsert, seen: bytes) -> None:
        committed = read_stored(mapping, upsert.document)
        if committed is not None and not ahead.written(mapping.key(upsert.document_id).encode(), last):
            text = await text_of(mapping, committed)
            await _roll_back(engine, upsert.document_id, seen, text, None, ahead, mine)

    await ahead.look(last)
    async with anyio.create_task_group() as tasks:
        for upsert, seen in upserts:
            tasks.start_soon(give, upsert, seen)
    reached("ids given")


def _versions(engine: Engine, refusals: Sequence[RefusedState], version: int) -> dict[str, int]:
    """The versions of the refused states, by the document's id where the key has one."""
    versions = {}
    for refusal in refusals:
        with suppress(Refused):
            versions[engine.mapping.id_of(refusal.entries.key)] = version
    return versions


async def _held(store: Store, ids: Collection[str]) -> dict[str, int]:
    """The newest version that MongoDB knows of each of these documents or its delete, if there is either."""
    if not ids:
        return {}
    stored, deleted = await store.documents.versions(ids), await store.tombstones.versions(ids)
    return {i: max(stored.get(i, 0), deleted.get(i, 0)) for i in stored.keys() | deleted.keys()}


async def _delete(redis: Redis, key: bytes, seen: bytes) -> None:
    """Delete a key that still holds this JSON text; what it holds instead has an entry of its own, maybe a later one.

    In a MULTI, since RedisGears 1.x holds a plain DEL until the worker, this one, has committed it.
    """
    async with redis.pipeline(transaction=True) as pipeline:
        await pipeline.watch(key)
        if await pipeline.type(key) != JSON_TYPE or await pipeline.execute_command("JSON.GET", key) != seen:
            return
        reached("deleting a refused key")
        pipeline.multi()
        pipeline.delete(key)
        with suppress(WatchError):
            await pipeline.execute()


async def _roll_back_moved(engine: Engine, store: Store, document_id: str, ahead: Ahead, mine: Mine) -> None:
    stored = await store.find_alive(document_id)
    if stored is not None:
        await _put(engine, document_id, await text_of(engine.mapping, stored), ahead, mine)


async def _put(engine: Engine, document_id: str, text: bytes, ahead: Ahead, mine: Mine) -> bool:
    try:
        return await engine.give_back(document_id, text, since=ahead.seen, token=mine.lease, life=mine.life)
    except RedisRefused as error:
        log.error("Redis refused a roll-back", key=engine.mapping.key(document_id), error=str(error))
        return False


async def _roll_back_to_stored(
    engine: Engine, store: Store, document_id: str, seen: bytes, ahead: Ahead, mine: Mine
) -> None:
    stored = await store.find_alive(document_id)
    document = None if stored is None else await text_of(engine.mapping, stored)
    version = 0 if stored is None else stored.version
    await _roll_back(engine, document_id, seen, document, version, ahead, mine)


async def _roll_back(
    engine: Engine, document_id: str, seen: bytes, document: bytes | None, version: int | None, ahead: Ahead, mine: Mine
) -> None:
    try:
        await engine.roll_back(document_id, seen, document, version=version, since=ahead.seen, life=mine.life)
    except RedisRefused as error:
        log.error("Redis refused a roll-back", key=engine.mapping.key(document_id), error=str(error))


def _dead_letter(refusal: RefusedState, version: int) -> DeadLetter:
    entries = refusal.entries
    seen, arrived = refusal.seen or b"", entries.arrived and refusal.seen is not None
    return DeadLetter(entries.key, entries.tokens, version, refusal.reason, seen, arrived)
