"""Listen: what plain clients write where no recipe captures it, from keyspace notifications.

Each write of the API announces its key on a channel of its own right after the write's keyspace event, in one atomic
unit, so that nobody else's message comes between the two: such events need no entry. The answer to a PING on the same
connection proves that every earlier message was read, announcements included; only then are keys captured.
"""

from collections.abc import Sequence
from time import monotonic

import anyio
import structlog

from gears.contract.entries import CAPTURED, RENAMED_FROM, RENAMED_TO
from gears.contract.mapping import Mapping
from gears.engines import Engine
from gears.errors import CaptureMissing, ConfigError, OutcomeUnknown, RedisAway, RedisRefused, Rewound
from gears.in_redis.client import AWAY, Redis, RedisError
from gears.in_redis.describe_errors import describe
from gears.process.failpoint import reached
from worker.audit.recheck.keyspace_events import KeyspaceEvents
from worker.audit.reconciler import request_sweep, request_sweeps
from worker.lease.lease import Lease

_WINDOW = 0.05
"""Seconds in which the events of a key become one entry, renames aside."""

_MOST = 1000
"""With so many events noted, they are captured without waiting for the window's end."""

_RENAMES = frozenset({RENAMED_FROM, RENAMED_TO})

_IDLE = 2.0
"""Without an event for this long, ask whether the connection lives."""

_UNHEARD = (RedisError, ConfigError, CaptureMissing, OutcomeUnknown, RedisAway, RedisRefused, Rewound)

_RETRY = 0.2
"""Seconds between attempts to listen."""


class Noted:
    """Events that need an entry, as far as the messages read up to now tell."""

    def __init__(self) -> None:
        self._events: dict[int, tuple[bytes, str]] = {}
        self._of_key: dict[bytes, list[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._events)

    def event(self, key: bytes, event: str) -> None:
        """A write of somebody's."""
        self._count += 1
        self._events[self._count] = (key, event)
        self._of_key.setdefault(key, []).append(self._count)

    def own(self, key: bytes) -> None:
        """The latest event of this key was the API's."""
        numbers = self._of_key.get(key)
        if numbers:
            del self._events[numbers.pop()]
            if not numbers:
                del self._of_key[key]

    def latest(self) -> list[tuple[bytes, str]]:
        """In their order, each key's latest event, and all events of renames, which come in pairs."""
        latest = {numbers[-1] for numbers in self._of_key.values()}
        return [what for number, what in self._events.items() if number in latest or what[1] in _RENAMES]

    def clear(self) -> None:
        """All of them are captured."""
        self._events.clear()
        self._of_key.clear()


class Listener:
    """Captures what plain clients write to one mapping's keys; the `Hearer` of their events.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine; its library must be loaded, now or soon.
        lease: the committer's, under which this is done.
        mappings: all of them: they are swept where Redis told of no change until now.
        timeout: seconds without an answer after which the connection is taken for dead.
    """

    def __init__(
        self, redis: Redis, engine: Engine, lease: Lease, mappings: Sequence[Mapping], *, timeout: float
    ) -> None:
        self._redis = redis
        self._engine = engine
        self._lease = lease
        self._mappings = mappings
        self._events = KeyspaceEvents(redis, engine.mapping.prefix, also=engine.names.own, timeout=timeout)
        self._noted = Noted()
        self._noted_since = 0.0
        self._life = ""
        self._asked = 0.0
        self._failed = ""
        self._log = structlog.get_logger().bind(mapping=engine.mapping.prefix)

    async def run(self) -> None:
        """Listen until cancelled, across lost connections.

        Raises:
            LeaseLost: another committer is at work.
        """
        while True:
            try:
                life = await self._engine.life()
                if life != self._life:
                    self._noted.clear()  # Redis may have forgotten these; a sweep is asked for
                    self._life = life
                if (await self._events.enable()).now:
                    await request_sweeps(self._redis, self._mappings)
                self._asked = 0.0  # at once, to learn when we are subscribed
                await self._events.follow(self)
            except (*AWAY, *_UNHEARD) as error:
                reason = describe(error)
                if reason != self._failed:
                    self._log.error("not listening to plain clients; trying again", reason=reason)
                    self._failed = reason
                await anyio.sleep(_RETRY)

    def event(self, key: bytes, event: str) -> None:
        if event in CAPTURED:
            if not self._noted:
                self._noted_since = monotonic()
            self._noted.event(key, event)

    def message(self, data: bytes) -> None:
        self._noted.own(data)

    def ask_in(self, now: float) -> float:
        if len(self._noted) >= _MOST:
            return 0.0
        return (self._noted_since + _WINDOW if self._noted else self._asked + _IDLE) - now

    async def heard(self, asked: float) -> None:
        self._asked = asked
        if self._failed:
            await request_sweep(self._redis, self._engine.names, "plain clients were not listened to")
            self._log.info("listening to plain clients again")
            self._failed = ""
        if self._noted:
            reached("plain writes heard")
            await self._engine.observe(self._noted.latest(), token=self._lease.token, life=self._life)
            reached("plain writes captured")
            self._noted.clear()
