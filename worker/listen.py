"""Listen: what plain clients write where no recipe captures it, from keyspace notifications.

Each write of the API announces its key on a channel of its own right after the write's keyspace event, in one atomic
unit, so that nobody else's message comes between the two: such events need no entry. The answer to a PING on the same
connection proves that every earlier message was read, announcements included; only then are keys captured.
"""

from time import monotonic
from typing import Any

import anyio
import structlog
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gears.engines import Engine
from gears.errors import ConfigError
from gears.redis import AWAY, Redis, RedisError
from gears.stream import EVENTS
from worker.reconcile import request_sweep

_WINDOW = 0.05
"""Seconds in which the events of a key become one entry."""

_MOST_KEYS = 1000
"""With so many keys noted, they are captured without waiting for the window's end."""

_IDLE = 2.0
"""Without a message for this long, ask whether the connection lives."""

_RETRY = 0.2
"""Seconds between attempts to listen."""

_SETTING = "notify-keyspace-events"

_FLAGS = {"K": "K", "g": "gA", "d": "dA"}
"""What the setting must hold, each with what implies it: keyspace channels, generic events, events of modules."""


class Noted:
    """Keys with events that need an entry, as far as the messages read up to now tell."""

    def __init__(self) -> None:
        self._events: dict[bytes, tuple[str | None, str]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def event(self, key: bytes, event: str) -> None:
        """A write of somebody's."""
        before = self._events.get(key)
        self._events[key] = (before[1] if before else None, event)

    def own(self, key: bytes) -> None:
        """The latest event of this key was the API's."""
        before, _ = self._events.pop(key, (None, ""))
        if before is not None:
            self._events[key] = (None, before)

    def latest(self) -> list[tuple[bytes, str]]:
        """The keys, each with its latest event."""
        return [(key, event) for key, (_, event) in self._events.items()]

    def clear(self) -> None:
        """All of them are captured."""
        self._events.clear()


class Listener:
    """Captures what plain clients write to one mapping's keys.

    Args:
        redis: client with replies as bytes.
        engine: the mapping's engine; its library must be loaded, now or soon.
        timeout: seconds without an answer after which the connection is taken for dead.
    """

    def __init__(self, redis: Redis, engine: Engine, *, timeout: float) -> None:
        database = redis.connection_pool.connection_kwargs.get("db") or 0
        self._redis = redis
        self._engine = engine
        self._timeout = timeout
        self._channels = f"__keyspace@{database}__:".encode()
        self._noted = Noted()
        self._noted_since = 0.0
        self._log = structlog.get_logger().bind(mapping=engine.mapping.prefix)

    async def run(self) -> None:
        """Listen until cancelled, across lost connections."""
        failed = ""
        while True:
            try:
                await self._ensure_notifications()
                async with self._redis.pubsub() as subscription:
                    await subscription.psubscribe(self._channels + f"{self._engine.mapping.prefix}:*".encode())
                    await subscription.subscribe(self._engine.names.own)
                    if failed:
                        await request_sweep(self._redis, self._engine.names, "plain clients were not listened to")
                        self._log.info("listening to plain clients again")
                        failed = ""
                    await self._follow(subscription)
            except (*AWAY, RedisError, ConfigError) as error:
                if str(error) != failed:
                    self._log.error("not listening to plain clients; trying again", reason=str(error))
                    failed = str(error)
                await anyio.sleep(_RETRY)

    async def _follow(self, subscription: Any) -> None:
        asked: float | None = None
        heard = monotonic()
        while True:
            now = monotonic()
            if asked is None and (self._due(now) or now - heard >= _IDLE):
                await subscription.ping()
                asked = now
            wait = _WINDOW if self._noted or asked else _IDLE
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=wait)
            if message is None:
                if asked is not None and monotonic() - asked > self._timeout:
                    raise RedisTimeoutError("the connection for keyspace notifications doesn't answer")
                continue
            heard = monotonic()
            if message["type"] == "pong":
                asked = None
                await self._capture()
            else:
                self._note(message["channel"], message["data"])

    def _due(self, now: float) -> bool:
        return len(self._noted) >= _MOST_KEYS or (bool(self._noted) and now - self._noted_since >= _WINDOW)

    def _note(self, channel: bytes, data: bytes) -> None:
        if not channel.startswith(self._channels):
            self._noted.own(data)
            return
        event = data.decode(errors="replace")
        if event in EVENTS:
            if not self._noted:
                self._noted_since = monotonic()
            self._noted.event(channel[len(self._channels) :], event)

    async def _capture(self) -> None:
        if self._noted:
            await self._engine.observe(self._noted.latest())
            self._noted.clear()

    async def _ensure_notifications(self) -> None:
        try:
            reply: Any = await self._redis.execute_command("CONFIG", "GET", _SETTING)
            flags = next(iter(reply.values())) if isinstance(reply, dict) else reply[1]
            flags = flags.decode() if isinstance(flags, bytes) else flags
            missing = [flag for flag, implied in _FLAGS.items() if not set(implied) & set(flags)]
            if missing:
                await self._redis.execute_command("CONFIG", "SET", _SETTING, flags + "".join(missing))
        except ResponseError as error:
            raise ConfigError(
                f"{_SETTING} must hold K, g and d for the writes of plain clients to be seen, and CONFIG is not "
                f"allowed here ({error}); allow it, or set it yourself and allow CONFIG GET"
            ) from error
