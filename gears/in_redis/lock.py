"""A lock in Redis."""

from redis.asyncio.lock import Lock

from gears.in_redis.scripts import script_text

_ACQUIRE = script_text("acquire_lock")
"""As `SET NX PX`, but Redis lets it through also when it is out of memory, since DEL comes first: only the committer
can free the memory that the sync stream takes.

A lease that lasts longer than any renewal makes it is cut short: Redis keeps the time of day at which a key expires,
and its clock was set back.
"""


class OomLock(Lock):
    """A lock that can be had while Redis is out of memory."""

    async def do_acquire(self, token: bytes | str) -> bool:
        assert self.timeout is not None
        script = self.redis.register_script(_ACQUIRE)
        return bool(await script(keys=[self.name], args=[token, int(self.timeout * 1000)]))
