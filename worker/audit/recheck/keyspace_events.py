"""Keyspace events of one mapping's keys: Redis is made to send them, and they are followed on a connection of its own.

Nobody is told of events that happened while nobody listened. So the one who hears them is told when everything up to
now was heard (the answer to a PING on the same connection proves it), and a lost connection is an error.
"""

from time import monotonic
from typing import Any, NamedTuple, Protocol

import anyio
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gears.contract.redis_names import Names
from gears.errors import ConfigError
from gears.in_redis.client import Redis

SETTING = "notify-keyspace-events"

_FLAGS = {"K": "K", "g": "gA", "d": "dA"}
"""What the setting must hold, each with what implies it: keyspace channels, generic events, events of modules."""

_REMOVALS = {"x": "xA", "e": "eA"}
"""What it should hold: expired, evicted."""

_PROBE_SECONDS = 1.0


class Enabled(NamedTuple):
    """What Redis sends.

    Args:
        removals: whether it also sends an event when it removes a key that expired or to make room; without CONFIG
            nobody can tell.
        now: whether something was missing until now.
    """

    removals: bool
    now: bool


class Hearer(Protocol):
    """Whoever follows the events."""

    def event(self, key: bytes, event: str) -> None:
        """This happened to one of the mapping's keys."""

    def message(self, data: bytes) -> None:
        """This was published on the other channel."""

    def ask_in(self, now: float) -> float:
        """In how many seconds to ask whether everything was heard; 0 or less for at once.

        Args:
            now: seconds of the monotonic clock.
        """

    async def heard(self, asked: float) -> None:
        """Everything published before this time was heard.

        Args:
            asked: seconds of the monotonic clock.
        """


class KeyspaceEvents:
    """The events of one mapping's keys.

    Args:
        redis: client with replies as bytes.
        prefix: the mapping's key prefix.
        also: another channel to listen to on the same connection.
        timeout: seconds without an answer after which the connection is taken for dead.
    """

    def __init__(self, redis: Redis, prefix: str, *, also: str | None = None, timeout: float) -> None:
        database = redis.connection_pool.connection_kwargs.get("db") or 0
        self._redis = redis
        self._prefix = prefix
        self._also = also
        self._timeout = timeout
        self._channels = f"__keyspace@{database}__:"

    async def enable(self) -> Enabled:
        """Have Redis send them.

        Raises:
            ConfigError: it doesn't send them, and may not be told to.
            RedisError: Redis is away.
        """
        flags = await self.setting()
        if flags is None:
            await self.probe()
            return Enabled(removals=False, now=False)
        needed, wanted = _missing(flags, _FLAGS), _missing(flags, _REMOVALS)
        if not needed and not wanted:
            return Enabled(removals=True, now=False)
        try:
            await self._redis.execute_command("CONFIG", "SET", SETTING, flags + needed + wanted)
        except ResponseError as error:
            if needed:
                raise ConfigError(f"{SETTING} is {flags!r}; set it to {flags + needed + wanted!r} ({error})") from error
            return Enabled(removals=False, now=False)
        return Enabled(removals=True, now=bool(needed))

    async def setting(self) -> str | None:
        """What the setting holds; None where Redis doesn't tell."""
        try:
            reply: Any = await self._redis.execute_command("CONFIG", "GET", SETTING)
        except ResponseError:
            return None
        for flags in reply.values() if isinstance(reply, dict) else reply[1:2]:
            return flags.decode() if isinstance(flags, bytes) else str(flags)
        return None

    async def probe(self) -> None:
        """Change a key and see whether that is told, where the setting can't be read.

        Raises:
            ConfigError: it isn't.
            RedisError: Redis is away.
        """
        key, events = Names(self._prefix).probe, set[bytes]()
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(self._channels + key)
            await subscription.get_message(timeout=_PROBE_SECONDS)  # subscribed
            await self._redis.execute_command("JSON.SET", key, "$", "1")
            await self._redis.delete(key)
            with anyio.move_on_after(_PROBE_SECONDS):
                while not events >= {b"json.set", b"del"}:
                    message = await subscription.get_message(timeout=_PROBE_SECONDS)
                    if message is not None and message["type"] == "message":
                        events.add(message["data"])
                return
        raise ConfigError(f"Redis sends no keyspace notifications and CONFIG is not allowed; set {SETTING} to 'Kgdxe'")

    async def follow(self, hearer: Hearer) -> None:
        """Tell what happens until cancelled.

        Raises:
            RedisError: the connection is lost.
        """
        async with self._redis.pubsub() as subscription:
            await subscription.psubscribe(f"{self._channels}{self._prefix}:*")
            if self._also is not None:
                await subscription.subscribe(self._also)
            await self._follow(subscription, hearer)

    async def _follow(self, subscription: Any, hearer: Hearer) -> None:
        channels, asked = self._channels.encode(), None
        while True:
            now = monotonic()
            wait = hearer.ask_in(now) if asked is None else asked + self._timeout - now
            if wait <= 0:
                if asked is not None:
                    raise RedisTimeoutError("the connection for keyspace notifications doesn't answer")
                await subscription.ping()
                asked, wait = now, self._timeout
            message = await subscription.get_message(ignore_subscribe_messages=True, timeout=wait)
            if message is None:
                continue
            if message["type"] == "pong":
                if asked is not None:
                    await hearer.heard(asked)
                asked = None
            elif message["channel"].startswith(channels):
                hearer.event(message["channel"][len(channels) :], message["data"].decode(errors="replace"))
            else:
                hearer.message(message["data"])


def flags_missing(flags: str) -> str:
    """What the setting should hold beside these flags."""
    return _missing(flags, _FLAGS) + _missing(flags, _REMOVALS)


def _missing(flags: str, wanted: dict[str, str]) -> str:
    return "".join(flag for flag, implied in wanted.items() if not set(implied) & set(flags))
