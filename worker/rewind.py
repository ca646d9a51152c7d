"""When Redis comes back older than MongoDB."""

import structlog
from redis.exceptions import ResponseError

from gears.backlog import last_entry
from gears.redis import Redis
from gears.stream import EntryId, Names

log = structlog.get_logger()


async def raise_stream(redis: Redis, names: Names, floor: EntryId) -> bool:
    """Move the stream's last id above `floor`, so that new entries get higher versions than all that MongoDB holds.

    Redis numbers entries by its clock; after it lost its tail and its clock was set back, new entries would look older
    than what is committed already.

    Returns:
        Whether it had to be moved.
    """
    newest = await last_entry(redis, names)
    if newest >= floor:
        return False
    try:
        await redis.xadd(names.stream, {"e": "rewind"}, id=str(floor.next))
    except ResponseError:
        if await last_entry(redis, names) < floor:
            raise
    log.warning(
        "Redis came back older than MongoDB; new entries go on above the checkpoint",
        mapping=names.prefix,
        last_entry=str(newest),
        checkpoint=str(floor),
    )
    return True
