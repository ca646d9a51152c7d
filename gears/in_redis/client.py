"""Connections to Redis: deadlines everywhere, and a write that tells 'not sent' from 'not answered'."""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from anyio import CancelScope
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError

from gears.errors import ConfigError, OutcomeUnknown, RedisAway, without_secrets
from gears.in_redis.describe_errors import describe
from gears.in_redis.pipelining import AWAY, REPLICA, Lane, Part, Wire, is_of_replica
from gears.in_redis.scripts import script_text
from gears.in_redis.sentinel import SentinelPool, service

FAILED = (RedisError, OSError)
"""What redis-py raises when Redis is away (see `AWAY`), and when it answers with an error."""

_SHARED_MAX_BYTES = 64 * 1024
"""Commands with a larger argument take a connection of their own, so that the others needn't wait for them."""


def connect(url: str, *, timeout: float, max_connections: int = 64, touching: bool = True) -> Redis:
    """A client for this URL; it connects when first used and never retries on its own.

    Args:
        url: `redis://`, `rediss://` or `unix://` URL; or, with sentinels, `redis+sentinel://` or `rediss+sentinel://`.
        timeout: deadline of each command, and of waiting for a free connection, in seconds.
        max_connections: most connections at a time; further commands wait for a free one.
        touching: whether what is read counts as used, for the LRU and LFU of Redis's eviction; Redis before 7.2 always
            counts it.

    Raises:
        ConfigError: the URL can't be used.
    """
    options = {
        "max_connections": max_connections,
        "timeout": timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "redis_connect_func": None if touching else _touch_nothing,
    }
    try:
        behind = service(url)
        pool = _Pool.from_url(url, **options) if behind is None else _SentinelPool(behind, **options)
        pool.make_connection()  # type: ignore[no-untyped-call]
    except ConfigError:
        raise
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigError(f"REDIS_URL can't be used: {without_secrets(url, error)}") from error
    pool.connection_class = type("Connection", (_Connection, pool.connection_class), {})
    pool.lane = Lane(pool, timeout)
    return Redis.from_pool(pool)


class _Pool(BlockingConnectionPool):
    lane: Lane

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections:
            self.lane.close()
        await super().disconnect(inuse_connections)


class _SentinelPool(SentinelPool, _Pool):
    pass


class _Connection(AbstractConnection):
    """Says that the server has closed the connection as redis-py does; uvloop raises RuntimeError on writing to it."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise exceptions.ConnectionError(str(error)) from error


async def _touch_nothing(connection: AbstractConnection) -> None:
    """Greet Redis, and leave the LRU and LFU of what is read alone, where Redis can do that and lets this user."""
    await connection.on_connect()
    await connection.send_command("CLIENT", "NO-TOUCH", "ON")
    with suppress(exceptions.ResponseError):
        await connection.read_response()


def address(redis: Redis) -> str:
    """Where a client looks for Redis: `host:port`, a path, or a service and its sentinels."""
    if isinstance(redis.connection_pool, SentinelPool):
        return redis.connection_pool.address
    where = redis.connection_pool.connection_kwargs
    return str(where.get("path") or f"{where.get('host')}:{where.get('port')}")


async def send_once(redis: Redis, *command: Part) -> Any:
    """Run a command that must not be repeated, on the connection that all share unless it is large.

    Args:
        redis: client; only those made by `connect` have a connection to share.
        command: name and arguments.

    Returns:
        The raw reply.

    Raises:
        RedisAway: no connection could be had; nothing was sent.
        OutcomeUnknown: the connection broke, or the deadline passed, after the command had been sent.
        ResponseError: Redis answered with an error.
    """
    pool = redis.connection_pool
    small = all(not isinstance(part, bytes) or len(part) <= _SHARED_MAX_BYTES for part in command)
    if small and isinstance(pool, _Pool):
        return await pool.lane.send(*command)
    try:
        connection = await redis.connection_pool.get_connection()
    except (*AWAY, AuthenticationError) as error:
        raise RedisAway(describe(error)) from error
    try:
        await connection.send_command(*command)
        return await connection.read_response()
    except BusyLoadingError as error:
        raise RedisAway(str(error)) from error
    except exceptions.ResponseError as error:
        if isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError)) or is_of_replica(str(error)):
            await connection.disconnect()
            raise RedisAway(REPLICA) from error
        raise
    except AWAY as error:
        if isinstance(error.__context__, exceptions.ReadOnlyError):  # as redis-py says it where there are sentinels
            raise RedisAway(REPLICA) from error
        raise OutcomeUnknown(str(error)) from error
    finally:
        with CancelScope(shield=True):
            await pool.release(connection)


@asynccontextmanager
async def own_wire(redis: Redis) -> AsyncIterator[Wire]:
    """A connection of one's own, for the time of a block; raises `RedisAway`.

    Args:
        redis: client made by `connect`.
    """
    timeout = redis.connection_pool.connection_kwargs["socket_timeout"]
    wire = await Wire.open(redis.connection_pool, timeout)
    try:
        yield wire
    finally:
        wire.close()


_READ = script_text("read_at_once")


async def read_at_once(redis: Redis, *commands: Sequence[str | bytes | int]) -> list[Any]:
    """Run commands that only read, at one moment.

    By a script, since Redis before 7.0 refuses whatever is in a MULTI while it is out of memory, and only commits free
    the memory that the sync stream takes.

    Returns:
        The raw replies.
    """
    args = [word for command in commands for word in (len(command), *command)]
    replies: list[Any] = await redis.register_script(_READ)(args=args)
    return replies


async def server_run(redis: Redis) -> bytes:
    """What tells one run of a Redis server from the next: the beginning of its `run_id`, as entries name it."""
    return str((await redis.info("server"))["run_id"])[:8].encode()


def run_of(info: bytes) -> bytes:
    """The same, from the text of `INFO server`."""
    found = re.search(rb"run_id:(\w{8})", info)
    return found[1] if found else b""


__all__ = [
    "AWAY",
    "FAILED",
    "Redis",
    "RedisError",
    "connect",
    "own_wire",
    "read_at_once",
    "run_of",
    "send_once",
    "server_run",
]
