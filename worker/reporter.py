"""What a committer says of itself: to the log when something changes, to Redis all the time."""

from itertools import chain
from time import time
from typing import Any

import anyio
import structlog

from gears.backlog import WorkerState
from gears.mapping import Mapping
from gears.redis import AWAY, Redis, RedisError
from gears.stream import Names

_EVERY = 1.0
_TTL = 5

_REPORT = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""What frees memory comes first: so Redis lets it through also when it is out of memory."""


class Reporter:
    """The one owner of a committer's `WorkerState`."""

    def __init__(self, redis: Redis, mapping: Mapping, owner: str, run: bytes) -> None:
        self._redis = redis
        self._name = Names(mapping.prefix).worker
        self._state = WorkerState(owner=owner, run=run.decode(), state="starting", since=time())
        self._changed = anyio.Event()
        self._log = structlog.get_logger().bind(mapping=mapping.prefix)

    def committing(self) -> None:
        """All is well."""
        self._change("committing", "")

    def retrying(self, reason: str) -> None:
        """The same commit is tried again until it succeeds."""
        self._state.retries += 1
        self._change("retrying", reason)

    def restoring(self, reason: str) -> None:
        """Redis is given back what it lost."""
        self._change("restoring", reason)

    def blocked(self, reason: str) -> None:
        """Nothing is committed until somebody mends this."""
        self._change("blocked", reason)

    def committed(self, entries: int, refused: int) -> None:
        """Count what a commit brought."""
        self._state.committed += entries
        self._state.refused += refused

    async def run(self) -> None:
        """Tell Redis, at once when the state changes, until cancelled."""
        script = self._redis.register_script(_REPORT)
        while True:
            self._changed = anyio.Event()
            state: dict[Any, Any] = self._state.model_dump()
            try:
                await script(keys=[self._name], args=[_TTL, *chain.from_iterable(state.items())])
            except (*AWAY, RedisError) as error:
                self._log.debug("could not report", error=str(error))
            with anyio.move_on_after(_EVERY):
                await self._changed.wait()

    async def withdraw(self) -> None:
        """Take the report back when the committer stops."""
        with anyio.move_on_after(1, shield=True):
            try:
                await self._redis.delete(self._name)
            except (*AWAY, RedisError) as error:
                self._log.debug("could not withdraw the report", error=str(error))

    def _change(self, state: str, reason: str) -> None:
        if state == self._state.state:
            self._state.reason = reason
            return
        before, self._state.state = self._state.state, state
        self._state.reason, self._state.since = reason, time()
        if reason:
            self._log.error("commits are held up", state=state, reason=reason)
        else:
            self._log.info("committing", after=before)
        self._changed.set()
