"""How many writes, and how many bytes of them, are in flight at a time, so that memory stays bounded."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from service.http.problems import OVERLOADED, Problem

MAX_WRITES = 4096
"""Most writes in flight, waiting ones included."""

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of bodies in flight."""


LARGE = 1024 * 1024
"""Bytes of a body from which on its write waits for its turn."""

TURN_SECONDS = 30.0
"""How long it waits for that."""


class Admission:
    """What is in flight in this process."""

    def __init__(self) -> None:
        self.writes = 0
        self.bytes = 0
        self._turn = anyio.Lock()

    @contextmanager
    def admit(self) -> Iterator["Ticket"]:
        """A ticket for the time of a block, which counts nothing in yet."""
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.writes -= ticket.begun
            self.bytes -= ticket.held

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Let only one large write at a time be under way, so that small ones needn't wait for more than that.

        Args:
            size: bytes of its body.

        Raises:
            Problem: its turn didn't come in time.
        """
        if size < LARGE:
            yield
            return
        with anyio.move_on_after(TURN_SECONDS):
            await self._turn.acquire()
        if self._turn.statistics().owner != anyio.get_current_task():
            raise Problem(OVERLOADED, f"other large writes took longer than {TURN_SECONDS:g} s")
        try:
            yield
        finally:
            self._turn.release()


class Ticket:
    """What one write takes: its bytes as they arrive and, from then on, a place; slow clients take no place."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0
        self.begun = 0

    def begin(self) -> None:
        """Count the write in.

        Raises:
            Problem: there are too many.
        """
        if self._admission.writes >= MAX_WRITES:
            raise Problem(OVERLOADED, f"{MAX_WRITES} writes are in flight already")
        self._admission.writes += 1
        self.begun = 1

    def hold_only(self, size: int) -> None:
        """Count no more than so many bytes of the body in, since the rest is done with.

        Raises:
            Problem: they are too many.
        """
        self.hold(size - self.held)

    def hold(self, size: int) -> None:
        """Count so many more bytes of the body in.

        Raises:
            Problem: they are too many.
        """
        if self._admission.bytes + size > MAX_BYTES:
            raise Problem(OVERLOADED, f"bodies of {MAX_BYTES // 2**20} MiB are in flight already")
        self._admission.bytes += size
        self.held += size
