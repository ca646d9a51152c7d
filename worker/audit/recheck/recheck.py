"""Recheck: keys are compared a moment after they changed, so that what no recipe captured is found within seconds.

In good times nothing comes of it, so it takes little: few keys at a time, some hundreds a second, a fixed number noted.
When keys change faster than that, it stops listening for a while and has everything swept afterwards.
"""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Dict
from time import monotonic

import anyio
import structlog
from redis.exceptions import ResponseError

from gears.cli.exception_groups import reasons
from gears.engines import Engine
from gears.errors import ConfigError
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.failpoint import reached
from gears.progress.compare import DRIFT, Kind
from worker.audit.prove_drift import Prover
from worker.audit.recheck.changed_keys import WINDOW, Overloaded
from worker.audit.recheck.heard_changes import HeardChanges
from worker.audit.recheck.keyspace_events import KeyspaceEvents
from worker.audit.recheck.look_different import suspects
from worker.audit.repair import delete_absent, repair
from worker.reporter import ReconcilerReporter

_AT_ONCE, _EVERY = 100, 0.2
"""So many keys are compared every so many seconds, at most."""

_ENABLE_EVERY = 5.0
_PAUSE, _MAX_PAUSE = 5.0, 600.0
"""Seconds without listening after the first overload in a while, and at most."""

_SAY_EVERY = 60.0

_DELETED = frozenset({"del", "rename_from", "move_from"})
"""Events after which a key that isn't there was deleted. (After `json.del`, a part of it may have been.)"""


class Recheck:
    """Compares and repairs the keys of one mapping that change.

    Args:
        redis: client with replies as bytes.
        store: the mapping's documents in MongoDB.
        engine: the mapping's engine.
        reporter: where to say how it goes.
        request_sweep: asks for a sweep, with the reason.
        switched_on: is called where Redis sends keyspace notifications now and didn't before.
        patience: seconds without any commit after which commits are held up.
        timeout: seconds without an answer after which the connection is taken for dead.
    """

    def __init__(
        self,
        redis: Redis,
        store: Store,
        engine: Engine,
        reporter: ReconcilerReporter,
        request_sweep: Callable[[str], Awaitable[None]],
        switched_on: Callable[[], Awaitable[None]],
        *,
        patience: float,
        timeout: float,
    ) -> None:
        self._redis = redis
        self._store = store
        self._engine = engine
        self._reporter = reporter
        self._request_sweep = request_sweep
        self._switched_on = switched_on
        self._prover = Prover(redis, store, patience=patience)
        self._events = KeyspaceEvents(redis, engine.mapping.prefix, timeout=timeout)
        self._changes = HeardChanges(reporter)
        self._deletes = _DELETED
        self._said = float("-inf")
        self._log = structlog.get_logger().bind(mapping=engine.mapping.prefix)

    async def run(self, begun: anyio.Event) -> None:
        """Recheck until cancelled.

        Args:
            begun: set when it listens, or can't.

        Raises, alone or in a group:
            RedisError, MongoError, CouldNotCompare, ...: changes may have been missed: begin again, and sweep.
        """
        pause, missed = 0.0, False
        while True:
            began = monotonic()
            try:
                await self._listen(begun, missed=missed)
            except* Overloaded as errors:
                self._reporter.overloaded(reasons(errors))
                pause = 2 * pause if monotonic() - began < _MAX_PAUSE else 0.0
            except* ConfigError as errors:
                self._reporter.deaf(reasons(errors))
            self._changes = HeardChanges(self._reporter)
            missed = True
            begun.set()
            pause = min(max(pause, _PAUSE), _MAX_PAUSE)
            await anyio.sleep(pause)

    async def _listen(self, begun: anyio.Event, *, missed: bool) -> None:
        async with anyio.create_task_group() as tasks:
            await self._enable()
            tasks.start_soon(self._follow)
            await self._changes.everything()
            if missed:
                tasks.start_soon(self._sweep_when_calm)
            else:
                self._reporter.listening()
            begun.set()
            tasks.start_soon(self._keep_enabled)
            while True:
                changed = self._changes.keys.take(monotonic(), _AT_ONCE)
                self._reporter.noted(len(self._changes.keys))
                if changed:
                    await self._recheck(changed)
                await anyio.sleep(_EVERY)

    async def _follow(self) -> None:
        try:
            await self._events.follow(self._changes)
        except ResponseError as error:
            raise ConfigError(f"Redis doesn't allow to listen to keyspace notifications: {error}") from error

    async def _enable(self) -> None:
        """Have Redis tell what changes; if it didn't, no mapping has heard, whoever of them finds it first."""
        enabled = await self._events.enable()
        self._deletes = _DELETED | {"json.del"} if enabled.removals else _DELETED
        if enabled.now:
            await self._switched_on()

    async def _keep_enabled(self) -> None:
        while True:
            await anyio.sleep(_ENABLE_EVERY)
            await self._enable()

    async def _sweep_when_calm(self) -> None:
        await anyio.sleep(WINDOW)
        self._reporter.listening()
        await self._request_sweep("changes were not listened to")

    async def _recheck(self, changed: Dict[bytes, str]) -> None:
        different = await suspects(self._redis, self._store, self._engine.mapping, list(changed))
        settled = await self._prover.settle(different)
        drift = [proof for proof in settled.proofs if proof.verdict.kind in DRIFT]
        left: Dict[bytes, str] = {}
        if drift:
            reached("drift found")
            left = await repair(self._store, self._engine, self._prover, drift)
        cold = [p.key for p in settled.proofs if p.verdict.kind is Kind.COLD and not p.verdict.legacy]
        deletes = await self._delete([key for key in cold if changed[key] in self._deletes])
        self._reporter.rechecked(len(changed), repaired=len(drift) - len(left), deletes=deletes)
        if (drift or deletes) and monotonic() > self._said + _SAY_EVERY:
            self._said = monotonic()
            self._log.warning(
                "changes were not captured", example=repr(different[0])[1:], differed=len(drift), left=len(left)
            )

    async def _delete(self, keys: Sequence[bytes]) -> int:
        """Capture deletes that no recipe did.

        Their last event says that they were deleted. If they had been written, filled, evicted or expired since, there
        were a later event: it is heard by now, or makes the key present.
        """
        if not keys:
            return 0
        await self._changes.everything()
        return await delete_absent(self._engine, [key for key in keys if key not in self._changes.keys])
