"""One read for all who want the same thing at the same time."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

K = TypeVar("K")
V = TypeVar("V")


class _Flight(Generic[V]):
    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.result: list[V] = []


class SingleFlight(Generic[K, V]):
    """Reads that are under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    async def run(self, key: K, read: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The result of `read`, or of another's for the same key that is under way already.

        Raises:
            Exception: what this caller's own `read` raised; failures of others' aren't shared.

        Returns:
            The result, and whether it is this caller's own.
        """
        while flight := self._flights.get(key):
            await flight.landed.wait()
            if flight.result:
                return flight.result[0], False
        flight = self._flights[key] = _Flight()
        try:
            result = await read()
            flight.result.append(result)
            return result, True
        finally:
            del self._flights[key]
            flight.landed.set()
