"""Listening to channels of Redis by a callback: no task has to be woken for what is said there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from gears.errors import RedisAway
from gears.in_redis.client import Redis, RedisError
from gears.in_redis.pipelining import connected, reply_error

Heard = Callable[[bytes, bytes], None]
"""Called with a channel and what is said there."""


class Subscription(asyncio.Protocol):
    """One connection, made and greeted by redis-py and then taken over; see `subscribed`."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection  # kept, since it closes the socket when nobody needs it any more
        self._transport = cast("asyncio.Transport", connection._writer.transport)  # type: ignore[union-attr]
        self._transport.set_protocol(self)
        loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=reply_error)
        self._unconfirmed = 0
        self._confirmed = loop.create_future()
        self._heard: Heard | None = None
        self._lost = loop.create_future()

    def listen(self, heard: Heard) -> None:
        """Pass on what is said, from the confirmation of the subscription on."""
        self._heard = heard
        self._transport.resume_reading()
        self.data_received(b"")

    async def lost(self, *, within: float) -> None:
        """Return after so many seconds; raise `RedisAway` as soon as the connection is lost."""
        await asyncio.wait([self._lost], timeout=within)
        if self._lost.done():
            raise RedisAway(self._lost.result())

    async def subscribe(self, channels: Sequence[str], timeout: float) -> None:
        """Have Redis confirm the subscription; nothing that is said later is missed."""
        self._unconfirmed = len(channels)
        self._transport.write(hiredis.pack_command(("SUBSCRIBE", *channels)))  # type: ignore[arg-type]
        await asyncio.wait([self._confirmed, self._lost], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not self._confirmed.done():
            raise RedisAway(self._lost.result() if self._lost.done() else "Redis did not confirm the subscription")
        await self._confirmed

    def close(self) -> None:
        """Close it."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Messages, or parts of them."""
        self._reader.feed(data)
        while (self._unconfirmed or self._heard) and (message := self._reader.gets()) is not False:
            if self._unconfirmed:
                self._confirm(message)
            elif self._heard:
                _, channel, said = message
                self._heard(channel, said)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is heard."""
        self._lost.set_result(str(exc or "Redis closed the connection"))

    def _confirm(self, answer: Any) -> None:
        self._unconfirmed -= 1
        if isinstance(answer, RedisError):
            self._unconfirmed = 0
            self._confirmed.set_exception(answer)
        elif not self._unconfirmed:
            self._transport.pause_reading()
            self._confirmed.set_result(None)


@asynccontextmanager
async def subscribed(redis: Redis, channels: Sequence[str]) -> AsyncIterator[Subscription]:
    """A subscription that Redis has confirmed, for the time of a block.

    Args:
        redis: client made by `connect`.
        channels: their names.

    Raises:
        RedisAway: Redis can't be reached, or doesn't confirm it in time.
        RedisError: Redis doesn't allow it.
    """
    pool = redis.connection_pool
    subscription = Subscription(await connected(pool))
    try:
        await subscription.subscribe(channels, pool.connection_kwargs["socket_timeout"])
        yield subscription
    finally:
        subscription.close()
