"""Recheck: keys are compared a moment after they changed, so that what no recipe captured is found within seconds.

In good times nothing comes of it, so it takes little: few keys at a time, some hundreds a second, a fixed number noted.
When keys change faster than that, it stops listening for a while and has everything swept afterwards.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Dict
from time import monotonic
from typing import Any

import anyio
import structlog
from redis.exceptions import ResponseError

from gears.contract.entries import EVENTS
from gears.contract.errors import ConfigError
from gears.engines import Engine
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis
from gears.process.exception_groups import reasons
from gears.process.failpoint import reached
from worker.audit.compare import DRIFT, Kind, look_equal
from worker.audit.keyspace_events import KeyspaceEvents
from worker.audit.prove_drift import Proof, Prover, with_ids
from worker.audit.repair import delete_absent, repair
from worker.commit.read_batch import readable
from worker.reporter import ReconcilerReporter

SETTLE = 1.0
"""Seconds after its last event until a key is compared: by then its write is committed."""

MOST_NOTED = 10_000
"""Changed keys that may wait to be compared."""

MOST_EVENTS = 10_000
"""Events that may come within `WINDOW` seconds."""

WINDOW = 5.0

_AT_ONCE, _EVERY = 100, 0.2
"""So many keys are compared every so many seconds, at most."""

_ASK_EVERY = 0.5
_ENABLE_EVERY = 5.0
_PAUSE, _MAX_PAUSE = 5.0, 600.0
"""Seconds without listening after the first overload in a while, and at most."""

_SAY_EVERY = 60.0

_REMOVED = frozenset({"expired", "evicted"})

_DELETED = frozenset({"del", "rename_from", "move_from"})
"""Events after which a key that isn't there was deleted. (After `json.del`, a part of it may have been.)"""


class Overloaded(Exception):
    """Keys change faster than they can be compared; the message tells how fast."""


class Noted:
    """Keys that changed, each with its last event; those that changed first come first."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def __contains__(self, key: bytes) -> bool:
        return key in self._last

    def note(self, key: bytes, event: str, now: float) -> None:
        """This happened to the key.

        Raises:
            Overloaded: too many are noted.
        """
        self._last[key] = now, event
        self._last.move_to_end(key)
        if len(self._last) > MOST_NOTED:
            raise Overloaded(f"more than {MOST_NOTED:,} changed keys wait to be compared")

    def take(self, now: float, most: int) -> dict[bytes, str]:
        """Remove and return those that have settled, at most so many."""
        taken: dict[bytes, str] = {}
        while self._last and len(taken) < most:
            key, (at, event) = next(iter(self._last.items()))
            if at > now - SETTLE:
                break
            del self._last[key]
            taken[key] = event
        return taken


class Recheck:
    """Compares and repairs the keys of one mapping that change; the `Hearer` of their events.

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
        self._mapping = engine.mapping
        self._reporter = reporter
        self._request_sweep = request_sweep
        self._switched_on = switched_on
        self._prover = Prover(redis, store, patience=patience)
        self._events = KeyspaceEvents(redis, engine.mapping.prefix, timeout=timeout)
        self._noted = Noted()
        self._deletes = _DELETED
        self._heard_until = float("-inf")
        self._heard = anyio.Event()
        self._window, self._in_window = 0.0, 0
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
            self._noted = Noted()
            missed = True
            begun.set()
            pause = min(max(pause, _PAUSE), _MAX_PAUSE)
            await anyio.sleep(pause)

    def event(self, key: bytes, event: str) -> None:
        self._reporter.heard()
        now = monotonic()
        if now > self._window + WINDOW:
            self._window, self._in_window = now, 0
        self._in_window += 1
        if self._in_window > MOST_EVENTS:
            raise Overloaded(f"more than {MOST_EVENTS:,} changes within {WINDOW:.0f} s")
        if event in EVENTS or event in _REMOVED:
            self._noted.note(key, event, now)

    def message(self, data: bytes) -> None:
        raise NotImplementedError(f"there is no other channel to hear this from: {data!r}")

    def ask_in(self, now: float) -> float:
        return self._heard_until + _ASK_EVERY - now

    async def heard(self, asked: float) -> None:
        self._heard_until = asked
        self._heard.set()
        self._heard = anyio.Event()

    async def _listen(self, begun: anyio.Event, *, missed: bool) -> None:
        async with anyio.create_task_group() as tasks:
            await self._enable()
            tasks.start_soon(self._follow)
            await self._everything_heard()
            if missed:
                tasks.start_soon(self._sweep_when_calm)
            else:
                self._reporter.listening()
            begun.set()
            tasks.start_soon(self._keep_enabled)
            while True:
                changed = self._noted.take(monotonic(), _AT_ONCE)
                self._reporter.noted(len(self._noted))
                if changed:
                    await self._recheck(changed)
                await anyio.sleep(_EVERY)

    async def _follow(self) -> None:
        try:
            await self._events.follow(self)
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

    async def _everything_heard(self) -> None:
        """Wait until every event up to now was heard."""
        now = monotonic()
        while self._heard_until < now:
            await self._heard.wait()

    async def _recheck(self, changed: Dict[bytes, str]) -> None:
        suspects = await self._suspects(list(changed))
        settled = await self._prover.settle(suspects)
        drift = [proof for proof in settled.proofs if proof.verdict.kind in DRIFT]
        left = await self._repair(drift) if drift else {}
        cold = [p.key for p in settled.proofs if p.verdict.kind is Kind.COLD and not p.verdict.legacy]
        deletes = await self._delete([key for key in cold if changed[key] in self._deletes])
        self._reporter.rechecked(len(changed), repaired=len(drift) - len(left), deletes=deletes)
        if (drift or deletes) and monotonic() > self._said + _SAY_EVERY:
            self._said = monotonic()
            self._log.warning(
                "changes were not captured", example=repr(suspects[0])[1:], differed=len(drift), left=len(left)
            )

    async def _repair(self, drift: Sequence[Proof]) -> Dict[bytes, str]:
        reached("drift found")
        return await repair(self._store, self._engine, self._prover, drift)

    async def _suspects(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of these keys that look different."""
        suspects: list[bytes] = []
        while keys:
            size = await readable(self._redis, keys)
            suspects += await self._different(keys[:size])
            keys = keys[size:]
        return suspects

    async def _different(self, keys: Sequence[bytes]) -> list[bytes]:
        texts: Any = await self._redis.execute_command("JSON.MGET", *keys, "$")
        ids = dict(with_ids(self._mapping, keys))
        stored = await self._store.documents.find_many(
            document_id for document_id in ids.values() if document_id is not None
        )
        return [
            key
            for key, text in zip(keys, texts, strict=True)
            if not await look_equal(self._mapping, text, stored.get(ids[key] or ""))
        ]

    async def _delete(self, keys: Sequence[bytes]) -> int:
        """Capture deletes that no recipe did.

        Their last event says that they were deleted. If they had been written, filled, evicted or expired since, there
        were a later event: it is heard by now, or makes the key present.
        """
        if not keys:
            return 0
        await self._everything_heard()
        return await delete_absent(self._engine, [key for key in keys if key not in self._noted])
