"""How many writes a second reach the stream, and MongoDB, from what Redis has counted."""

from collections import deque
from dataclasses import dataclass

from gears.progress.backlog import Backlog

_SAMPLES = 4
"""How many samples a rate is taken over: some three seconds."""

_GAP = 5.0
"""Seconds without a sample after which measuring begins anew."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Entries a second.

    Args:
        captured: put on the stream.
        committed: taken off it, since MongoDB has what they tell of.
    """

    captured: float
    committed: float


@dataclass(frozen=True, slots=True)
class _Counted:
    at: float
    captured: int
    committed: int


class Meter:
    """Measures the rates of one mapping."""

    def __init__(self) -> None:
        self._samples: deque[_Counted] = deque(maxlen=_SAMPLES)

    def measured(self, backlog: Backlog | None, now: float) -> Rates | None:
        """The rates up to now; None until there are two samples.

        Args:
            backlog: as it is now; None if Redis can't be asked, which begins anew.
            now: seconds of any clock that doesn't go back.
        """
        counted = None if backlog is None else _counted(backlog, now)
        if counted is None or (self._samples and now - self._samples[-1].at > _GAP):
            self._samples.clear()
        if counted is None:
            return None
        self._samples.append(counted)
        first, last = self._samples[0], self._samples[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return None
        return Rates(  # a Redis that forgot something, or a new worker, counts from less
            max(0.0, (last.captured - first.captured) / seconds),
            max(0.0, (last.committed - first.committed) / seconds),
        )


def _counted(backlog: Backlog, now: float) -> _Counted | None:
    if backlog.added is not None:
        return _Counted(now, backlog.added, backlog.added - backlog.entries)
    if backlog.worker is None:
        return None
    return _Counted(now, backlog.worker.committed + backlog.entries, backlog.worker.committed)
