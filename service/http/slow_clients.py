"""Connections whose client is waited for: ended when that takes too long, or when others need the room."""

import asyncio
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Waited(Protocol):
    """A connection that can be given up."""

    def give_up(self) -> None:
        """End it; nothing more is waited for."""


C = TypeVar("C", bound=Waited)


class Patience(Generic[C]):
    """One kind of waiting, under one timer for all connections.

    Args:
        seconds: how long each may take.
        most_bytes: how many bytes may be kept for all of them; beyond, those that have taken longest are given up.
    """

    def __init__(self, seconds: float, *, most_bytes: int = 0) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._waiting: OrderedDict[C, tuple[float, int]] = OrderedDict()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: C, size: int = 0) -> None:
        """Wait for this one from now on.

        Args:
            connection: whose client is waited for.
            size: bytes that are kept meanwhile.
        """
        self.end(connection)
        loop = asyncio.get_running_loop()
        self._waiting[connection] = loop.time() + self._seconds, size
        self._bytes += size
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire)
        while self._bytes > self._most_bytes and self.give_up_longest():
            pass

    def end(self, connection: C) -> None:
        """Its client has done what it was waited for, or is gone."""
        _, size = self._waiting.pop(connection, (0.0, 0))
        self._bytes -= size

    def give_up_longest(self) -> bool:
        """Give up the one that has taken longest; False when none is waited for."""
        if not self._waiting:
            return False
        connection = next(iter(self._waiting))
        self.end(connection)
        connection.give_up()
        return True

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            due, _ = next(iter(self._waiting.values()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self.give_up_longest()
        self._timer = None
