"""One task samples for all who look at the page, once a second, and only while anybody does."""

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic, time
from typing import Any

import anyio
from pydantic_core import to_json

from gears.in_mongo.client import MongoError, within
from gears.in_mongo.dead_letters import KeptLetter
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.store import Store
from service.http.problems import TOO_MANY_VIEWERS, Problem
from service.page.rates import Meter, Rates
from service.page.sentence import BEHIND, Measured, sentence, waiting
from service.page.view import audits_view, letters_view, mapping_view, servers_view
from service.watch.gather_state import DEADLINE, Inspection, Inspector, MappingState
from service.watch.latest_writes import Latest

MAX_VIEWERS = 50
"""Most who look at a time."""

EVERY = 1.0
"""Seconds between two samples."""

HISTORY = 15 * 60.0
"""Seconds for which the points of the charts are kept."""

_SLOW_EVERY = 10.0
"""Seconds between two samples of what changes slowly: recipes, audits, dead letters, the reconciler."""

_LETTERS_EVERY = 60.0
"""Seconds after which dead letters are read again, though there are as many as before."""

_AUDITS, _LETTERS = 3, 10
"""How many of them are shown of each mapping."""

_CAUGHT_UP_SECONDS = 15.0
"""For how long it is said that MongoDB has what had to wait."""

_SLOWLY = ("engine", "capture", "dead_letters", "last_audit", "reconciler", "rewinds", "collection")
"""What of a mapping's state that is."""

Point = tuple[int, float, int, float, float]
"""Milliseconds of the Unix epoch, the longest lag, how many writes wait, and the rates of capture and commits."""


class Sampler:
    """Samples, and keeps what the charts need.

    Args:
        inspector: asks Redis and MongoDB.
        stores: the dead letters and audits of each mapping, by prefix.
        latest: the latest writes of this process.
        backlog_limit: uncommitted entries from which on nothing more is written.
    """

    def __init__(
        self, inspector: Inspector, stores: Mapping[str, Store], latest: Latest, *, backlog_limit: int
    ) -> None:
        self._inspector = inspector
        self._stores = stores
        self._latest = latest
        self._backlog_limit = backlog_limit
        self._meters = {prefix: Meter() for prefix in stores}
        self._points: deque[Point] = deque(maxlen=int(HISTORY / EVERY))
        self._viewers = 0
        self._wanted = anyio.Event()
        self._stopping = False
        self._number = 0
        self._message: bytes | None = None
        self._next = anyio.Event()
        self._slow = _Slow()
        self._held_up = 0
        """The most writes that waited while MongoDB was away; 0 once it has them."""
        self._caught_up: tuple[float, int] | None = None

    async def run(self) -> None:
        """Sample while there are viewers, until cancelled."""
        while True:
            await self._wanted.wait()
            began = monotonic()
            message = await self._sample()
            if self._viewers:
                self._message = message
                self._number += 1
                passed, self._next = self._next, anyio.Event()
                passed.set()
            await anyio.sleep(max(EVERY / 5, began + EVERY - monotonic()))

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Count a viewer in for the time of a block.

        Raises:
            Problem: there are too many.
        """
        if self._viewers >= MAX_VIEWERS:
            raise Problem(TOO_MANY_VIEWERS, f"{MAX_VIEWERS} look at this page already")
        if not self._viewers:
            self._slow.forget()
        self._viewers += 1
        self._latest.watched = True
        self._wanted.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._latest.watched = False
                self._wanted = anyio.Event()
                self._message = None

    async def samples(self) -> AsyncIterator[bytes]:
        """Each sample as JSON, the present one first; who is slow misses some. Ends when the process does."""
        seen = -1
        while not self._stopping:
            if self._message is None or self._number == seen:
                await self._next.wait()
                continue
            seen = self._number
            yield self._message

    def stop(self) -> None:
        """Let all `samples` end."""
        self._stopping = True
        self._next.set()

    def history(self) -> list[Point]:
        """The points of the charts, the oldest first; there are none for when nobody looked."""
        since = (time() - HISTORY) * 1000
        return [point for point in self._points if point[0] >= since]

    async def _sample(self) -> bytes:
        thorough = self._slow.is_old(monotonic())
        inspection = await self._inspector.inspect(thorough=thorough, capture=thorough)
        if thorough:
            await self._slow.renew(inspection, self._stores)
        else:
            inspection = replace(
                inspection,
                mappings=[_merged(state, self._slow.states) for state in inspection.mappings],
                warnings=self._slow.warnings,
            )
        now = monotonic()
        rates = {
            state.mapping.prefix: self._meters[state.mapping.prefix].measured(state.backlog, now)
            for state in inspection.mappings
        }
        point = _point(inspection.mappings, rates)
        if point is not None:
            self._points.append(point)
        return to_json({"point": point} | self._view(inspection, rates, now))

    def _view(self, inspection: Inspection, rates: Mapping[str, Rates | None], now: float) -> dict[str, Any]:
        measured = Measured(
            write_seconds=self._latest.typical(),
            batch_seconds=self._slow.batch_seconds(inspection.mappings),
            caught_up=self._noted_catching_up(inspection, now),
        )
        return {
            "sentence": sentence(inspection, measured, backlog_limit=self._backlog_limit),
            "servers": servers_view(inspection),
            "warnings": inspection.warnings,
            "mappings": [mapping_view(state, rates[state.mapping.prefix]) for state in inspection.mappings],
            "latest": self._latest.shown(),
            "audits": audits_view(self._slow.audits),
            "dead_letters": letters_view(self._slow.letters),
        }

    def _noted_catching_up(self, inspection: Inspection, now: float) -> int | None:
        """How many writes MongoDB has by now that had to wait while it was away, if that was a moment ago."""
        wait = waiting(inspection.mappings)
        if "mongo" in inspection.errors:
            self._held_up = max(self._held_up, wait)
            self._caught_up = None
        elif self._held_up and "redis" not in inspection.errors:
            lags = [state.backlog.lag for state in inspection.mappings if state.backlog is not None]
            if max(lags, default=0.0) <= BEHIND:
                self._caught_up, self._held_up = (now, self._held_up), 0
        if self._caught_up is None or now - self._caught_up[0] > _CAUGHT_UP_SECONDS:
            return None
        return self._caught_up[1]


class _Slow:
    """What changes slowly, as it was found last."""

    def __init__(self) -> None:
        self.states: dict[str, MappingState] = {}
        self.warnings: list[str] = []
        self.audits: dict[str, list[AuditReport]] = {}
        self.letters: dict[str, list[KeptLetter]] = {}
        self._at = self._letters_at = float("-inf")
        self._batches: dict[str, tuple[int, float]] = {}

    def is_old(self, now: float) -> bool:
        """Whether to ask again: after a while, or when something couldn't be had."""
        return now - self._at >= _SLOW_EVERY or any(state.errors for state in self.states.values())

    def forget(self) -> None:
        """Ask again at once."""
        self._at = float("-inf")

    async def renew(self, inspection: Inspection, stores: Mapping[str, Store]) -> None:
        """Keep what a thorough inspection found, and ask what it doesn't."""
        before = {prefix: state.dead_letters for prefix, state in self.states.items()}
        self.states = {state.mapping.prefix: state for state in inspection.mappings}
        self.warnings = inspection.warnings
        self._at = now = monotonic()
        if "mongo" in inspection.errors:
            return
        counts = {prefix: state.dead_letters for prefix, state in self.states.items()}
        again = counts != before or now - self._letters_at > _LETTERS_EVERY
        try:
            with within(DEADLINE):
                for prefix, store in stores.items():
                    self.audits[prefix] = await store.reports.audits(limit=_AUDITS)
                    if again:
                        self.letters[prefix] = await store.dead_letters.latest(_LETTERS) if counts[prefix] else []
        except MongoError:
            return  # the next inspection says it
        if again:
            self._letters_at = now

    def batch_seconds(self, states: Sequence[MappingState]) -> float | None:
        """How long MongoDB took for a batch since the last sample; None if there was none."""
        batches, seconds = 0, 0.0
        for state in states:
            if state.backlog is None or state.backlog.worker is None:
                continue
            prefix, worker = state.mapping.prefix, state.backlog.worker
            before = self._batches.get(prefix, (worker.batches, worker.batch_seconds))
            batches += worker.batches - before[0]
            seconds += worker.batch_seconds - before[1]
            self._batches[prefix] = worker.batches, worker.batch_seconds
        return seconds / batches if batches > 0 and seconds > 0 else None


def _point(states: Sequence[MappingState], rates: Mapping[str, Rates | None]) -> Point | None:
    """The point of all mappings together; None while Redis doesn't say how they are."""
    backlogs = [state.backlog for state in states if state.backlog is not None]
    if len(backlogs) < len(states):
        return None
    known = [rate for rate in rates.values() if rate is not None]
    captured, committed = sum(rate.captured for rate in known), sum(rate.committed for rate in known)
    lag = max((backlog.lag for backlog in backlogs), default=0.0)
    return int(time() * 1000), lag, waiting(states), round(captured, 1), round(committed, 1)


def _merged(state: MappingState, slow: Mapping[str, MappingState]) -> MappingState:
    """A state with what changes slowly, as it was found last."""
    found = slow.get(state.mapping.prefix)
    if found is None:
        return state
    errors = {name: reason for name, reason in found.errors.items() if name in _SLOWLY}
    return replace(state, **{name: getattr(found, name) for name in _SLOWLY}, errors=errors | state.errors)
