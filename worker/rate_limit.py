"""A limit on how many documents a second are read."""

from time import monotonic

import anyio


class Pace:
    """Keeps to a rate.

    Args:
        rate: documents per second; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = monotonic()

    async def spend(self, documents: int) -> None:
        """Return when it is time to go on after so many documents."""
        if self._rate:
            self._due = max(self._due, monotonic() - 1) + documents / self._rate
            await anyio.sleep(max(0.0, self._due - monotonic()))
