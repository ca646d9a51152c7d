"""What a committer does first: begin a term, see whether Redis has forgotten what was acknowledged, and give it back.

In this order: a term that is begun before the life is known may be older than what was acknowledged in a life that is
forgotten since. The names are those of docs/protocol.
"""

from collections.abc import Callable
from typing import Any

import structlog

from gears.contract.entries import decode_entry
from gears.contract.redis_names import Names
from gears.contract.version import shown, term_of, version_of
from gears.engines import Engine
from gears.in_mongo.log.batches import Acked, Head, Logged, going_on
from gears.in_mongo.log.before_terms import acked_before_terms
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.in_redis.scripts import script_text
from gears.process.failpoint import reached
from gears.progress.backlog import last_entry
from gears.progress.set_aside_entries import read_aside
from worker.commit.set_aside import Aside
from worker.commit.term import Standing, Term
from worker.commit.try_again import tries
from worker.give_back.mongo_older_backup import bring_what_is_missing
from worker.give_back.redis_lost_writes import GiveBack, decided
from worker.lease.lease import Lease
from worker.lease.lease_and_life import Mine
from worker.reporter import Reporter

log = structlog.get_logger()

_LOOK = script_text("look_at_acked")

_CHECKED = script_text("mark_checked")
"""DEL, which takes no memory, comes first: so Redis lets the rest through also when it is out of memory."""


async def begin(
    term: Term,
    engine: Engine,
    store: Store,
    reporter: Reporter,
    *,
    ask_first: bool,
    put_back: bool,
    warm: Callable[[], object],
) -> None:
    """Begin a term, as soon as MongoDB can be reached.

    Args:
        term: the term.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        reporter: where to say how it goes.
        ask_first: whether somebody is to decide before Redis is given back what it has forgotten.
        put_back: whether MongoDB was found to have been put back, though more was committed since.
        warm: called where plain clients don't find in Redis what only MongoDB holds.

    Raises:
        LeaseLost: another committer is at work.
        Rewound: Redis has forgotten something meanwhile.
        CaptureMissing: the recipe is gone.
        RedisAway, OutcomeUnknown, RedisError: Redis is away; start again under a new lease.
    """
    redis = engine.redis
    async for attempt in tries(reporter):
        with attempt, reporter.patiently("MongoDB"):
            await store.writer.unpark()
            standing = await recover(redis, engine, store, term.lease, reporter, ask_first=ask_first, put_back=put_back)
    term.begin(standing)
    term.aside = Aside((await read_aside(redis, engine.names)).values())
    if standing.partial:
        warm()
    reporter.committing()
    reporter.set_aside(term.aside.count, term.aside.reason)
    term.may_refuse(await last_entry(redis, engine.names))


async def recover(
    redis: Redis,
    engine: Engine,
    store: Store,
    lease: Lease,
    reporter: Reporter,
    *,
    ask_first: bool,
    put_back: bool,
) -> Standing:
    """See where Redis and MongoDB stand, and give Redis back what it has forgotten.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        lease: the lease under which this is done.
        reporter: where to say how it goes.
        ask_first: whether somebody is to decide before Redis is given back what it has forgotten.
        put_back: whether MongoDB was found to have been put back, though more was committed since.

    Raises:
        LeaseLost: another committer is at work.
        Rewound: Redis has forgotten something meanwhile.
        MongoError, RedisError: do it again; that changes nothing that is done already.
    """
    names = Names(engine.mapping.prefix)
    mine = await Mine.learn(redis, engine, lease.token)
    reached("life learnt")
    term = await store.log.begin_term(mine.life)
    newest = await store.log.newest()
    acked, waits = await _look(redis, names, mine, newest)
    if term_of(acked.version) >= term:
        term = await store.log.begin_term(mine.life, above=term_of(acked.version) + 1)
    head = await store.log.head()
    come = newest is None or await store.has_come(newest)
    if newest is not None and newest.newest.life != mine.life:
        await store.log.keep_late(head, newest.version - (not come))
    partial, lives = False, newest.lives if newest is not None else {}
    if newest is not None and acked.version < newest.version and not waits:
        give_back = GiveBack(redis, engine, store, mine, acked=acked, newest=newest, head=head)
        if ask_first:
            await give_back.allowed(reporter.blocked)
        known = f"batch {shown(acked.version)}" if acked.version else "nothing"
        reporter.restoring(
            f"Redis has forgotten what was acknowledged up to batch {shown(newest.version)}: it knows {known}"
        )
        given_back = await give_back.run(lease)
        log.warning("gave Redis back what it had forgotten", mapping=engine.mapping.prefix, keys=given_back)
        partial, lives = give_back.partial, dict(newest.lives)
        if not come:
            await store.log.keep_doubtful(newest.doubtful)
            lives |= {doubt.life: doubt.above for doubt in newest.doubtful}
        acked = Acked(newest.version, newest.upto if come else newest.certain)
    await _find_lost(redis, names, store, head)
    await mine.run(redis, names, _CHECKED, (names.checked, names.acked), (mine.life, str(acked)))
    reached("checked")
    await redis.delete(*names.before_lives)
    if put_back or acked.version > (newest.version if newest is not None else 0):
        newest, acked = await _mend(redis, engine, store, reporter, mine, acked, newest, term, ask_first=ask_first)
        lives = newest.lives
    unacked = {newest.version: newest.newest.id} if newest is not None and newest.version > acked.version else {}
    return Standing(mine, term, acked, lives, unacked, partial)


async def _mend(
    redis: Redis,
    engine: Engine,
    store: Store,
    reporter: Reporter,
    mine: Mine,
    acked: Acked,
    newest: Logged | None,
    term: int,
    *,
    ask_first: bool,
) -> tuple[Logged, Acked]:
    """Bring MongoDB what it doesn't hold any more; returns the newest batch, and what is acknowledged, from then on."""
    names = Names(engine.mapping.prefix)
    held = shown(newest.version) if newest is not None else "none"
    reason = (
        f"MongoDB was put back: its newest batch is {held}, and {shown(acked.version)} was acknowledged. Every key "
        "whose document it doesn't hold is brought to it; deletes that it has forgotten stay undone"
    )
    log.error("MongoDB was put back", mapping=names.prefix, newest=held, acknowledged=shown(acked.version))
    if ask_first:
        reporter.blocked(f"{reason}; to have that done: redis-cli SET '{names.rewind}' restore")
        await decided(redis, names)
    reporter.restoring(reason)
    brought = await bring_what_is_missing(redis, engine, store, life=mine.life)
    log.warning("bringing MongoDB what it had forgotten", mapping=names.prefix, keys=brought)
    acked = Acked(version_of(term, 0), acked.token)
    lives = going_on(newest.lives if newest is not None else {}, [acked.token])
    newest = Logged(acked.version, acked.token, acked.token, acked.token, lives)
    await store.log.add(newest)
    await mine.run(redis, names, _CHECKED, (names.checked, names.acked), (mine.life, str(acked)))
    return newest, acked


async def _look(redis: Redis, names: Names, mine: Mine, newest: Logged | None) -> tuple[Acked, bool]:
    """What Redis knows to be acknowledged, and whether the newest entry of the newest batch is still on its stream."""
    at = newest.newest if newest is not None else None
    keys = (names.acked, names.watermark, names.stream)
    found: Any = await mine.run(redis, names, _LOOK, keys, (str(at.id) if at else "0-1",))
    text, watermark, entries = found
    acked = Acked.parse(text) if text else acked_before_terms(watermark)
    waiting = [decode_entry(i, dict(zip(fields[::2], fields[1::2], strict=True))) for i, fields in entries]
    return acked, any(entry.token == at for entry in waiting)


async def _find_lost(redis: Redis, names: Names, store: Store, head: Head) -> None:
    """Note what was set aside, and is no longer known to Redis, as lost."""
    aside = await read_aside(redis, names)
    if lost := [token for token in head.aside if token not in aside]:
        await store.log.keep_aside(aside, lost)
