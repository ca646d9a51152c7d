"""Connections to Redis: deadlines everywhere, and a write that tells 'not sent' from 'not answered'."""

from collections.abc import Iterable
from typing import Any

from anyio import CancelScope
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError

from gears.errors import ConfigError, OutcomeUnknown, RedisAway, without_secrets

AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, OSError)
"""What redis-py raises when the server can't be reached, is loading or doesn't answer in time."""


def connect(url: str, *, timeout: float, max_connections: int = 64) -> Redis:
    """A client for this URL; it connects when first used and never retries on its own.

    Args:
        url: `redis://`, `rediss://` or `unix://` URL.
        timeout: deadline of each command, and of waiting for a free connection, in seconds.
        max_connections: most connections at a time; further commands wait for a free one.

    Raises:
        ConfigError: the URL can't be used.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError as error:
        raise ConfigError(f"REDIS_URL can't be used: {without_secrets(url, error)}") from error
    pool.connection_class = type("Connection", (_Connection, pool.connection_class), {})
    return Redis.from_pool(pool)


class _Connection(AbstractConnection):
    """Says that the server has closed the connection as redis-py does; uvloop raises RuntimeError on writing to it."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise exceptions.ConnectionError(str(error)) from error


async def send_once(redis: Redis, *command: str | bytes | int | float) -> Any:
    """Run a command that must not be repeated.

    Returns:
        The raw reply.

    Raises:
        RedisAway: no connection could be had; nothing was sent.
        OutcomeUnknown: the connection broke, or the deadline passed, after the command had been sent.
        ResponseError: Redis answered with an error.
    """
    pool = redis.connection_pool
    try:
        connection = await pool.get_connection()
    except (*AWAY, AuthenticationError) as error:
        raise RedisAway(str(error)) from error
    try:
        await connection.send_command(*command)
        return await connection.read_response()
    except BusyLoadingError as error:
        raise RedisAway(str(error)) from error
    except AWAY as error:
        raise OutcomeUnknown(str(error)) from error
    finally:
        with CancelScope(shield=True):
            await pool.release(connection)


async def server_run(redis: Redis) -> bytes:
    """What tells one run of a Redis server from the next: the beginning of its `run_id`, as entries name it."""
    return run_of(await redis.info("server"))


def run_of(info: dict[str, Any]) -> bytes:
    """The same, from what `INFO server` says."""
    return str(info["run_id"])[:8].encode()


__all__ = ["AWAY", "Redis", "RedisError", "connect", "run_of", "send_once", "server_run"]
