"""Waiting until what was captured is committed."""

from time import monotonic

import anyio

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.contract.write_tokens import EntryId
from gears.errors import CouldNotCompare
from gears.in_redis.client import Redis
from gears.progress.backlog import read_backlog

_POLL = 0.01


async def wait_committed(redis: Redis, mapping: Mapping, entry_id: EntryId, *, patience: float) -> None:
    """Return when everything up to this entry of the mapping's sync stream is committed.

    Args:
        redis: client with replies as bytes.
        mapping: whose sync stream.
        entry_id: the entry.
        patience: seconds without any commit after which commits are held up.

    Raises:
        CouldNotCompare: commits are held up.
        RedisError: Redis is away.
    """
    names = Names(mapping.prefix)
    acked, since = None, monotonic()
    while True:
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.get(names.acked)
            pipeline.xrange(names.stream, max=str(entry_id), count=1)
            position, waiting = await pipeline.execute()
        if not waiting:
            return
        if position != acked:
            acked, since = position, monotonic()
        if monotonic() - since > patience:
            raise CouldNotCompare(await _why_held_up(redis, mapping))
        await anyio.sleep(_POLL)


async def _why_held_up(redis: Redis, mapping: Mapping) -> str:
    backlog = await read_backlog(redis, mapping)
    worker = "no worker is at work" if backlog.worker is None else f"the worker is {backlog.worker.state}"
    reason = f": {backlog.worker.reason}" if backlog.worker and backlog.worker.reason else ""
    return f"commits of {mapping.prefix!r} are held up, {backlog.entries} entries wait; {worker}{reason}"
