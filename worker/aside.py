"""Documents that MongoDB doesn't take now, though it takes others: set aside, and tried again until it does."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from time import monotonic

from gears.stream import EntryId
from worker.plan import KeyEntries

_FIRST, _LONGEST = 0.5, 10.0
"""Seconds between two tries."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """What a commit changes.

    Args:
        added: keys that are set aside, each with what is said of it.
        settled: entries that were set aside and are no longer.
    """

    added: Dict[bytes, KeyEntries] = field(default_factory=dict)
    settled: tuple[EntryId, ...] = ()


@dataclass(slots=True)
class _Waiting:
    entries: KeyEntries
    reason: str = "set aside by an earlier committer"
    pause: float = _FIRST
    due: float = 0.0


class Aside:
    """What one committer has set aside.

    Args:
        found: entries that an earlier one had, each with key and event.
    """

    def __init__(self, found: Dict[EntryId, tuple[bytes, str]] | None = None) -> None:
        self._waiting: dict[bytes, _Waiting] = {}
        for entry_id, (key, event) in sorted((found or {}).items()):
            entries = self._waiting.setdefault(key, _Waiting(KeyEntries(key))).entries
            entries.ids.append(entry_id)
            entries.last_event = event

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    @property
    def count(self) -> int:
        """How many keys are set aside."""
        return len(self._waiting)

    @property
    def reason(self) -> str:
        """Why, of one of them; empty when there is none."""
        return next((f"{key!r:.60}: {waiting.reason}" for key, waiting in self._waiting.items()), "")

    def entries(self, done: Sorted | None = None) -> list[EntryId]:
        """All entries that are set aside; or those that were, and those that a commit adds."""
        added = [entry_id for entries in done.added.values() for entry_id in entries.ids] if done else []
        known = [entry_id for waiting in self._waiting.values() for entry_id in waiting.entries.ids]
        return sorted({*known, *added})

    @property
    def known(self) -> dict[bytes, KeyEntries]:
        """What is said of each key."""
        return {key: waiting.entries for key, waiting in self._waiting.items()}

    def due(self) -> set[bytes]:
        """The keys to try again now."""
        now = monotonic()
        return {key for key, waiting in self._waiting.items() if waiting.due <= now}

    def sort(self, failed: Dict[bytes, KeyEntries], tried: Iterable[KeyEntries]) -> Sorted:
        """What a commit changes in what is set aside.

        Args:
            failed: keys that failed, with all that is said of them.
            tried: all keys of the batch.
        """
        settled = [
            entry_id
            for entries in tried
            if entries.key in self._waiting and entries.key not in failed
            for entry_id in self._waiting[entries.key].entries.ids
        ]
        return Sorted(failed, tuple(settled))

    def take(self, done: Sorted, reasons: Dict[bytes, str]) -> None:
        """Take over what was acknowledged."""
        settled = set(done.settled)
        self._waiting = {key: w for key, w in self._waiting.items() if not settled.intersection(w.entries.ids)}
        for key, entries in done.added.items():
            known = self._waiting.get(key)
            pause = _FIRST if known is None else min(known.pause * 2, _LONGEST)
            self._waiting[key] = _Waiting(entries, reasons[key], pause, monotonic() + pause)
