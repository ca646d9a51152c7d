"""Connections to Redis that carry many commands at a time.

A pool gives every command a connection, a system call and a wake-up of its own; here commands that are under way
together travel together. Replies come in the order of the commands, so the oldest that waits is the one that is
answered, and the one whose deadline passes first.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from gears.errors import OutcomeUnknown, RedisAway
from gears.in_redis.describe_errors import describe

AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, OSError)
"""What redis-py raises when the server can't be reached, is loading or doesn't answer in time."""

REPLICA = "Redis was made a replica"
"""What is said when it takes no writes; nothing was done."""

_OF_REPLICA = ("-READONLY You can't write", "can not run a function that might perform writes on a replica")

Part = str | bytes | int | float
"""A part of a command."""


async def connected(pool: ConnectionPool) -> AbstractConnection:
    """A new connection, greeted with the pool's credentials, TLS and so on; raises `RedisAway`."""
    connection: AbstractConnection = pool.make_connection()
    try:
        await connection.connect()
    except (*AWAY, AuthenticationError) as error:
        raise RedisAway(describe(error)) from error
    return connection


class Wire(asyncio.Protocol):
    """One connection, made and greeted by redis-py and then taken over; once lost it stays lost.

    Args:
        connection: a connected one.
        timeout: seconds until a command's reply must be there; later the connection is given up.
    """

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection  # kept, since it closes the socket when nobody needs it any more
        self._transport = connection._writer.transport  # type: ignore[union-attr]
        self._transport.set_protocol(self)
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=reply_error)
        self._asked: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._unsent: list[bytes] = []
        self._watching = False

    @classmethod
    async def open(cls, pool: ConnectionPool, timeout: float) -> "Wire":
        """A new one; raises as `connected`."""
        return cls(await connected(pool), timeout)

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return not self._transport.is_closing()

    async def send(self, *command: Part) -> Any:
        """Run a command.

        Returns:
            The raw reply.

        Raises:
            RedisAway: the connection is lost, Redis is loading, or was made a replica; nothing was done.
            OutcomeUnknown: the connection broke, or the deadline passed, after the command had been sent.
            ResponseError: Redis answered with an error.
        """
        return self._checked(await self._ask(command))

    async def send_all(self, *commands: Sequence[Part]) -> list[Any]:
        """Run these one after the other in one round trip; returns and raises as `send`, for the first that failed."""
        return [self._checked(reply) for reply in await asyncio.gather(*map(self._ask, commands))]

    def close(self, reason: str = "the connection was closed") -> None:
        """Close it; what is under way ends as unknown."""
        self._transport.abort()
        while self._asked:
            _, reply = self._asked.popleft()
            if not reply.done():
                reply.set_exception(OutcomeUnknown(reason))

    def data_received(self, data: bytes) -> None:
        """Replies, or parts of them."""
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            _, reply = self._asked.popleft()
            if not reply.done():  # whoever asked may have gone away
                reply.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is answered any more."""
        self.close(str(exc or "Redis closed the connection"))

    def _ask(self, command: Sequence[Part]) -> "asyncio.Future[Any]":
        if not self.is_open:
            raise RedisAway("the connection to Redis was lost")
        reply = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._send_unsent)
        self._unsent.append(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
        self._asked.append((self._loop.time() + self._timeout, reply))
        if not self._watching:
            self._watch()
        return reply

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, BusyLoadingError):
            raise RedisAway(str(reply))
        if isinstance(reply, ReadOnlyError):
            self.close(REPLICA)  # the next connection is to the primary, where anybody knows which one that is
            raise RedisAway(REPLICA)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def _send_unsent(self) -> None:
        """All commands of one turn of the event loop take one system call, which costs more than all else here."""
        unsent, self._unsent = self._unsent, []
        if self.is_open:
            self._transport.writelines(unsent)

    def _watch(self) -> None:
        """Look again when the deadline of the oldest command passes."""
        self._watching = bool(self._asked)
        if not self._watching:
            return
        deadline, _ = self._asked[0]
        if self._loop.time() < deadline:
            self._loop.call_at(deadline, self._watch)
        else:
            self._watching = False
            self.close(f"Redis did not answer within {self._timeout:g} s")


class Lane:
    """A wire that all share; it connects when first used, again when the connection was lost, and repeats nothing.

    Args:
        pool: see `Wire.open`.
        timeout: see `Wire`.
    """

    def __init__(self, pool: ConnectionPool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self._opening: asyncio.Task[None] | None = None
        self._wire: Wire | None = None

    async def send(self, *command: Part) -> Any:
        """See `Wire.send`."""
        if self._wire is None or not self._wire.is_open:
            await self._connect()
        assert self._wire is not None
        return await self._wire.send(*command)

    def close(self) -> None:
        """See `Wire.close`."""
        if self._opening is not None:
            self._opening.cancel()
        if self._wire is not None:
            self._wire.close()

    async def _connect(self) -> None:
        """Wait for the attempt that is under way, or a new one; all who wait share its failure."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        try:
            await asyncio.shield(self._opening)
        except RedisAway as error:
            raise RedisAway(str(error)) from None

    async def _open(self) -> None:
        try:
            self._wire = await Wire.open(self._pool, self._timeout)
        finally:
            self._opening = None


def reply_error(text: str) -> RedisError:
    """The error that a reply stands for."""
    if text.startswith("LOADING"):
        return BusyLoadingError(text)
    return ReadOnlyError(text) if is_of_replica(text) else ResponseError(text.removeprefix("ERR "))


def is_of_replica(text: str) -> bool:
    """Whether an error says that a replica takes no writes: in Redis's words, a script's of Redis 6, RedisGears 2's."""
    return text.startswith(("READONLY", "MASTERDOWN")) or any(said in text for said in _OF_REPLICA)
