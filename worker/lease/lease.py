"""One committer per mapping: a lease in Redis, renewed while it works, taken over when it stops."""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from uuid import uuid4

import anyio
from redis.exceptions import LockError, LockNotOwnedError, NoPermissionError

from gears.errors import LeaseLost
from gears.in_redis.client import AWAY, Redis
from gears.in_redis.lock import OomLock


def process_name() -> str:
    """What tells this process from all others, to a person too."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"


class Lease:
    """The right to commit for one mapping.

    Args:
        redis: where the lease is kept.
        name: its key.
        ttl: seconds until it ends unless renewed.
    """

    def __init__(self, redis: Redis, name: str, ttl: float) -> None:
        self._redis = redis
        self._lock = OomLock(redis, name, timeout=ttl, blocking=False, thread_local=False)
        self._ttl = ttl
        self._ends = 0.0

    @property
    def token(self) -> str:
        """What the lease's key holds while it is ours."""
        return str(self._lock.local.token.decode())

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly ours now."""
        if monotonic() >= self._ends:
            raise LeaseLost("the lease was not renewed in time")

    async def hold(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work` under the lease; it is cancelled when the lease is lost.

        Returns:
            False when somebody else holds the lease; True when work was done.

        Raises:
            LeaseLost: somebody else took it over.
        """
        if self._lock.local.token is not None:  # Redis was away when it was to be released
            with suppress(LockError):
                await self._lock.release()
        asked = monotonic()
        if not await self._lock.acquire():
            return False
        self._ends = asked + self._ttl
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._renew)
                await work()
                tasks.cancel_scope.cancel()
        finally:
            await self._release()
        return True

    async def _renew(self) -> None:
        while True:
            await anyio.sleep(self._ttl / 4)
            asked = monotonic()
            try:
                await self._lock.extend(self._ttl, replace_ttl=True)
            except LockNotOwnedError as error:
                raise LeaseLost("another committer took over") from error
            except AWAY:
                self.check()
            else:
                self._ends = asked + self._ttl
                await self._touch()

    async def _touch(self) -> None:
        """Count as used: to Redis's LRU and LFU, what a client does that touches nothing leaves the lease unused."""
        with suppress(NoPermissionError, *AWAY):  # users that were set up before may not
            await self._redis.touch(self._lock.name)

    async def _release(self) -> None:
        self._ends = 0.0
        with anyio.move_on_after(1, shield=True):
            try:
                await self._lock.release()
            except (LockError, *AWAY):
                return
