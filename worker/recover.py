"""What a committer does first: see where Redis and MongoDB stand, and give Redis back what it lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from gears.aside import read_aside
from gears.checkpoint import Checkpoint
from gears.engines import Engine
from gears.gaps import Gap, Runs, gaps_of, remember_gaps
from gears.redis import Redis, server_run
from gears.rewind_store import RewindStore
from gears.stream import ZERO, EntryId, Names
from gears.watermark import encode_commit
from worker.lease import Lease
from worker.reporter import Reporter
from worker.rewind import find_rewind
from worker.room import forget, mark_checked, may_have_forgotten

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where to go on.

    Args:
        watermark: the watermark in Redis.
        runs: what is known to be committed; whatever is between that and the next entry of another run is lost.
        lost: no state that Redis was given back after a rewind is newer than this.
        reserved: up to which entry versions are reserved, for committers of this epoch.
        epoch: how often Redis had forgotten something.
    """

    watermark: EntryId
    runs: Runs
    lost: EntryId
    reserved: EntryId
    epoch: int


async def recover(
    redis: Redis, engine: Engine, store: RewindStore, lease: Lease, reporter: Reporter, *, ask_first: bool
) -> Standing:
    """See where Redis and MongoDB stand, and give Redis back what it lost.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine.
        store: the mapping's documents in MongoDB.
        lease: the lease under which this is done.
        reporter: where to say how it goes.
        ask_first: whether somebody is to decide before Redis is given back what it lost.

    Raises:
        LeaseLost: another committer is at work.
        MongoError, RedisError: do it again; that changes nothing that is done already.
    """
    names = Names(engine.mapping.prefix)
    run = await server_run(redis)  # first: should Redis be restarted meanwhile, that is not this run
    watermark, checkpoint, rewind = await find_rewind(redis, engine, store)
    if rewind is not None:
        if ask_first:
            await rewind.allowed(reporter.blocked)
        reporter.restoring(f"Redis forgot what was committed after {watermark}")
        restored = await rewind.restore(lease)
        log.warning("gave Redis back what it had lost", mapping=engine.mapping.prefix, keys=restored)
    elif await may_have_forgotten(redis, names, run):
        known = await store.begin_epoch()
        if max(known.newest, known.reserved) > ZERO:
            # What has come to MongoDB since the checkpoint was read first is forgotten, too.
            line = await forget(redis, names, run, known, after=checkpoint.newest, token=lease.token)
            await store.reserve(EntryId.of_version(line).next, known.epoch)  # the next line is to be above this one
    checkpoint = await store.checkpoint() or Checkpoint(ZERO, ZERO)
    aside = await read_aside(redis, names)
    await _share_gaps(redis, names, store, checkpoint, [Gap.of(i) for i in checkpoint.aside if i not in aside])
    await mark_checked(redis, names, run, lease.token)
    committed_by: Any = await redis.get(names.run)
    certain = max(watermark, checkpoint.certain) if rewind is None else rewind.certain
    runs = Runs(committed_by or b"forgotten", certain)
    return Standing(watermark, runs, checkpoint.fence, checkpoint.reserved, checkpoint.epoch)


async def _share_gaps(
    redis: Redis, names: Names, store: RewindStore, checkpoint: Checkpoint, lost: Sequence[Gap]
) -> None:
    """Let Redis and MongoDB each know of the gaps that the other knows of, and whoever waits for a commit.

    Args:
        lost: of what was set aside and Redis has forgotten.
    """
    await remember_gaps(redis, names, [*checkpoint.gaps, *lost])
    found = await gaps_of(redis, names)
    if new := [gap for gap in found if gap not in checkpoint.gaps]:
        await store.keep_gaps(new)
    await redis.publish(names.channel, encode_commit(ZERO, (), found))
