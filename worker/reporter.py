"""What a committer and a reconciler say of themselves: to the log when something changes, to Redis all the time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from time import monotonic, time
from typing import Any, Generic, TypeVar

import anyio
import structlog

from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.in_redis.client import FAILED, Redis
from gears.in_redis.scripts import script_text
from gears.progress.backlog import WorkerState
from gears.progress.reconciler_state import ReconcilerState

_EVERY = 1.0
_TTL = 5
_PATIENCE = 2.0
"""Seconds that MongoDB may take for a commit before that is said."""

_REPORT = script_text("publish_state")
"""What frees memory comes first: so Redis lets it through also when it is out of memory."""


State = TypeVar("State", WorkerState, ReconcilerState)


class _Published(Generic[State]):
    """A state that is kept in Redis while somebody keeps it up to date."""

    def __init__(self, redis: Redis, name: str, prefix: str, state: State) -> None:
        self._redis = redis
        self._name = name
        self._state: State = state
        self._changed = anyio.Event()
        self._log = structlog.get_logger().bind(mapping=prefix)

    async def run(self) -> None:
        """Tell Redis, at once when the state changes, until cancelled."""
        script = self._redis.register_script(_REPORT)
        while True:
            self._changed = anyio.Event()
            self._refresh()
            state: dict[Any, Any] = self._state.model_dump()
            try:
                await script(keys=[self._name], args=[_TTL, *chain.from_iterable(state.items())])
            except FAILED as error:
                self._log.debug("could not report", error=str(error))
            with anyio.move_on_after(_EVERY):
                await self._changed.wait()

    async def withdraw(self) -> None:
        """Take the report back when the work stops."""
        with anyio.move_on_after(1, shield=True):
            try:
                await self._redis.delete(self._name)
            except FAILED as error:
                self._log.debug("could not withdraw the report", error=str(error))

    def _refresh(self) -> None:
        """Bring what changes all the time up to date."""

    def _change(self, state: str, reason: str) -> str | None:
        """Go over to this state; returns the one before, or None when it was the same."""
        if state == self._state.state:
            self._state.reason = reason
            return None
        before = str(self._state.state)
        self._state.state, self._state.reason, self._state.since = state, reason, time()
        self._changed.set()
        return before


class Reporter(_Published[WorkerState]):
    """The one owner of a committer's `WorkerState`."""

    def __init__(self, redis: Redis, mapping: Mapping, owner: str, run: bytes) -> None:
        state = WorkerState(owner=owner, run=run.decode(), state="starting", since=time())
        super().__init__(redis, Names(mapping.prefix).worker, mapping.prefix, state)
        self._timer: asyncio.TimerHandle | None = None

    def committing(self) -> None:
        """All is well."""
        self._tell("committing", "")

    def retrying(self, reason: str) -> None:
        """The same commit is tried again until it succeeds."""
        self._state.retries += 1
        self._tell("retrying", reason)

    @contextmanager
    def patiently(self, who: str) -> Iterator[None]:
        """Say that commits are held up if what is in the block takes long, and nothing else is said of it."""
        loop = asyncio.get_running_loop()
        reason = f"{who}: not done within {_PATIENCE:g} s"
        self._timer = timer = loop.call_later(_PATIENCE, self._tell, "retrying", reason)
        try:
            yield
        finally:
            timer.cancel()

    def preparing(self, reason: str) -> None:
        """Commits wait for something that MongoDB takes long for, such as the build of an index."""
        self._tell("preparing", reason)

    def restoring(self, reason: str) -> None:
        """Redis is given back what it lost."""
        self._tell("restoring", reason)

    def warming(self, done: int, total: int) -> None:
        """Redis is given what only MongoDB holds: so many documents of about so many; none when that is done."""
        if not (self._state.to_warm and total):
            self._changed.set()
        self._state.warmed, self._state.to_warm = done, total

    def blocked(self, reason: str) -> None:
        """Nothing is committed until somebody mends this."""
        self._tell("blocked", reason)

    def committed(self, entries: int, refused: int) -> None:
        """Count what a commit brought."""
        self._state.committed += entries
        self._state.refused += refused

    def written(self, seconds: float) -> None:
        """Count a batch that MongoDB has written, and how long it took."""
        self._state.batches += 1
        self._state.batch_seconds += seconds

    def set_aside(self, count: int, reason: str) -> None:
        """So many keys are set aside; one line says so when that begins, and ends."""
        if bool(count) != bool(self._state.aside):
            if count:
                self._log.error("set aside: MongoDB doesn't take it now; trying again", keys=count, reason=reason)
            else:
                self._log.info("nothing is set aside any more")
            self._changed.set()
        self._state.aside, self._state.aside_reason = count, reason

    def _tell(self, state: str, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        before = self._change(state, reason)
        if before is None:
            return
        if reason:
            self._log.error("commits are held up", state=state, reason=reason)
        else:
            self._log.info("committing", after=before)


class ReconcilerReporter(_Published[ReconcilerState]):
    """The one owner of a reconciler's `ReconcilerState`."""

    def __init__(self, redis: Redis, mapping: Mapping, owner: str) -> None:
        state = ReconcilerState(owner=owner, state="starting", since=time())
        super().__init__(redis, Names(mapping.prefix).reconciling, mapping.prefix, state)
        self._measured = (monotonic(), 0)

    def starting(self) -> None:
        """Not listening yet."""
        self._change("starting", "")

    def listening(self) -> None:
        """Keys are compared a moment after they changed."""
        before = self._change("listening", "")
        if before in ("overloaded", "deaf"):
            self._log.info("listening to changes again", after=before)

    def overloaded(self, reason: str) -> None:
        """Keys change too fast to be compared; a sweep follows."""
        if self._change("overloaded", reason) is not None:
            self._log.warning("not listening to changes, there are too many; a sweep follows", reason=reason)

    def deaf(self, reason: str) -> None:
        """Redis doesn't tell what changes; sweeps remain."""
        if self._change("deaf", reason) is not None:
            self._log.error("not listening to changes, only sweeps find them", reason=reason)

    def heard(self) -> None:
        """Count an event."""
        self._state.notifications += 1

    def noted(self, keys: int) -> None:
        """So many keys wait to be compared."""
        self._state.noted = keys

    def rechecked(self, keys: int, *, repaired: int, deletes: int) -> None:
        """Count what was compared, and what came of it."""
        self._state.rechecked += keys
        self._state.repaired += repaired
        self._state.deletes += deletes

    def _refresh(self) -> None:
        at, before = self._measured
        now, count = monotonic(), self._state.notifications
        if now - at >= _EVERY:
            self._state.notifications_per_second = round((count - before) / (now - at), 1)
            self._measured = now, count
