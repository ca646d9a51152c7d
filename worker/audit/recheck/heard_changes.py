"""What was heard of a mapping's keys: which ones changed, and up to when that is all."""

from time import monotonic

import anyio

from gears.contract.entries import EVENTS
from worker.audit.recheck.changed_keys import ChangedKeys, EventCount
from worker.reporter import ReconcilerReporter

_ASK_EVERY = 0.5
"""Seconds after which it is asked again whether everything was heard."""

_REMOVED = frozenset({"expired", "evicted"})


class HeardChanges:
    """The `Hearer` of their events.

    Args:
        reporter: where to say how many come.

    Attributes:
        keys: those that changed.
    """

    def __init__(self, reporter: ReconcilerReporter) -> None:
        self.keys = ChangedKeys()
        self._reporter = reporter
        self._count = EventCount()
        self._until = float("-inf")
        self._heard = anyio.Event()

    def event(self, key: bytes, event: str) -> None:
        self._reporter.heard()
        now = monotonic()
        self._count.add(now)
        if event in EVENTS or event in _REMOVED:
            self.keys.note(key, event, now)

    def message(self, data: bytes) -> None:
        raise NotImplementedError(f"there is no other channel to hear this from: {data!r}")

    def ask_in(self, now: float) -> float:
        return self._until + _ASK_EVERY - now

    async def heard(self, asked: float) -> None:
        self._until = asked
        self._heard.set()
        self._heard = anyio.Event()

    async def everything(self) -> None:
        """Wait until every event up to now was heard."""
        now = monotonic()
        while self._until < now:
            await self._heard.wait()
