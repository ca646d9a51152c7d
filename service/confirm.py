"""Waiting until MongoDB has confirmed a write."""

import asyncio
from time import perf_counter

from anyio import move_on_after

from gears.errors import Refused
from gears.mapping import Mapping
from gears.stream import EntryId
from gears.watermark import Watermarks
from service.metrics import Metrics
from service.preferences import Preferences
from service.problems import NOT_CONFIRMED, REFUSED, Problem

_FOLLOWING_SECONDS = 0.5
"""How long a write is put off while commits aren't followed; a subscription that was lost is back by then."""

_STOPPING_SECONDS = 1.0
"""How much longer writes wait once the process is told to end."""


class Confirmations:
    """The writes of this process that wait.

    Args:
        watermarks: tell how far each mapping is committed.
        metrics: told how long each write waited.
        timeout: seconds that a write waits unless it says otherwise.
    """

    def __init__(self, watermarks: Watermarks, metrics: Metrics, timeout: float) -> None:
        self._watermarks = watermarks
        self._metrics = metrics
        self._timeout = timeout
        self._deadlines: set[asyncio.Timeout] = set()
        self._stopping = False

    async def prepared(self, mapping: Mapping) -> EntryId:
        """Put a write off for a moment while a restarted Redis isn't known yet, lest it be in doubt for nothing.

        Returns:
            An entry that what is written from now on comes after.
        """
        if not self._watermarks.are_followed:
            with move_on_after(_FOLLOWING_SECONDS):
                await self._watermarks.followed()
        return self._watermarks[mapping.prefix].position

    async def confirmed(self, mapping: Mapping, entry_id: EntryId, preferences: Preferences, *, after: EntryId) -> bool:
        """Wait for the confirmation of an entry; False if the writer prefers not to wait longer.

        Args:
            mapping: whose entry.
            entry_id: the entry.
            preferences: the writer's.
            after: what `prepared` returned before the write.

        Raises:
            Problem: the document was refused, or isn't confirmed in time.
            OutcomeUnknown: Redis was restarted meanwhile, and may have forgotten the entry.
        """
        if entry_id <= after:
            await self._watermarks.went_back(mapping.prefix, entry_id)
        started = perf_counter()
        seconds = self._patience(preferences)
        deadline = asyncio.timeout(seconds)
        self._deadlines.add(deadline)
        try:
            async with deadline:
                await self._watermarks[mapping.prefix].reached(entry_id)
        except TimeoutError:
            if preferences.respond_async:
                return False
            raise self._not_confirmed(mapping, entry_id, preferences) from None
        except Refused as refusal:
            headers = {"Sync-Token": str(entry_id)} | preferences.applied(accepted=False)
            raise Problem(REFUSED, refusal.reason, headers=headers) from None
        finally:
            self._deadlines.discard(deadline)
            self._metrics.commit_wait(mapping.prefix, perf_counter() - started)
        return True

    def stop(self) -> None:
        """Let what waits wait only a little longer."""
        self._stopping = True
        soon = asyncio.get_running_loop().time() + _STOPPING_SECONDS
        for deadline in self._deadlines:
            when = deadline.when()
            if when is not None and when > soon:
                deadline.reschedule(soon)

    def _patience(self, preferences: Preferences) -> float:
        if preferences.wait is None:
            seconds = 0.0 if preferences.respond_async else self._timeout
        else:
            seconds = preferences.wait
        return min(seconds, _STOPPING_SECONDS) if self._stopping else seconds

    def _not_confirmed(self, mapping: Mapping, entry_id: EntryId, preferences: Preferences) -> Problem:
        path = status_path(mapping, entry_id)
        return Problem(
            NOT_CONFIRMED,
            f"MongoDB has not confirmed the write in time; it stays queued, and GET {path} tells when it is committed",
            headers={"Sync-Token": str(entry_id)} | preferences.applied(accepted=False),
            token=str(entry_id),
            sync=path,
        )


def status_path(mapping: Mapping, entry_id: EntryId) -> str:
    """Where to ask whether an entry is committed."""
    return f"/sync/{entry_id}?mapping={mapping.prefix}"
