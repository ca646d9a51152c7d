"""Keys that changed and wait to be compared, in bounds: how many may wait, and how many changes may come."""

from collections import OrderedDict

from gears.errors import WritethroughError

SETTLE = 1.0
"""Seconds after its last event until a key is compared: by then its write is committed."""

MOST_NOTED = 10_000
"""Changed keys that may wait to be compared."""

MOST_EVENTS = 10_000
"""Events that may come within `WINDOW` seconds."""

WINDOW = 5.0


class Overloaded(WritethroughError):
    """Keys change faster than they can be compared; the message tells how fast."""


class ChangedKeys:
    """Keys that changed, each with its last event; those that changed first come first."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def __contains__(self, key: bytes) -> bool:
        return key in self._last

    def note(self, key: bytes, event: str, now: float) -> None:
        """This happened to the key.

        Raises:
            Overloaded: too many are noted.
        """
        self._last[key] = now, event
        self._last.move_to_end(key)
        if len(self._last) > MOST_NOTED:
            raise Overloaded(f"more than {MOST_NOTED:,} changed keys wait to be compared")

    def take(self, now: float, most: int) -> dict[bytes, str]:
        """Remove and return those that have settled, at most so many."""
        taken: dict[bytes, str] = {}
        while self._last and len(taken) < most:
            key, (at, event) = next(iter(self._last.items()))
            if at > now - SETTLE:
                break
            del self._last[key]
            taken[key] = event
        return taken


class EventCount:
    """Counts events, in one window after the other."""

    def __init__(self) -> None:
        self._since, self._count = 0.0, 0

    def add(self, now: float) -> None:
        """One more has come.

        Raises:
            Overloaded: too many have.
        """
        if now > self._since + WINDOW:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > MOST_EVENTS:
            raise Overloaded(f"more than {MOST_EVENTS:,} changes within {WINDOW:.0f} s")
