"""Documents that MongoDB doesn't take now, though it takes others: set aside, and tried again until it does."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from time import monotonic

from gears.contract.entries import Entry
from gears.contract.write_tokens import Token
from worker.commit.read.decide import KeyEntries, coalesce

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
    settled: tuple[Token, ...] = ()


class Aside:
    """What one committer has set aside. All of it is tried again together, since one may depend on another.

    Args:
        found: entries that an earlier one had.
    """

    def __init__(self, found: Iterable[Entry] = ()) -> None:
        self.known = coalesce(sorted(found, key=lambda entry: entry.id))
        """What is said of each key."""
        self._reasons = dict.fromkeys(self.known, "set aside by an earlier committer")
        self._pause, self._due = _FIRST, 0.0

    @property
    def count(self) -> int:
        """How many keys are set aside."""
        return len(self.known)

    @property
    def reason(self) -> str:
        """Why, of one of them; empty when there is none."""
        return next((f"{key!r:.60}: {reason}" for key, reason in self._reasons.items()), "")

    @property
    def is_due(self) -> bool:
        """Whether to try again now."""
        return bool(self.known) and self._due <= monotonic()

    def entries(self, done: Sorted | None = None) -> list[Token]:
        """All entries that are set aside; or those that were, and those that a commit adds."""
        keys = [*self.known.values(), *(done.added.values() if done else ())]
        return sorted({token for entries in keys for token in entries.tokens}, key=lambda token: token.id)

    def sort(self, failed: Dict[bytes, KeyEntries], tried: Iterable[KeyEntries]) -> Sorted:
        """What a commit changes in what is set aside.

        Args:
            failed: keys that failed, with all that is said of them.
            tried: all keys of the batch.
        """
        done = (entries.key for entries in tried if entries.key in self.known and entries.key not in failed)
        return Sorted(failed, tuple(token for key in done for token in self.known[key].tokens))

    def take(self, done: Sorted, reasons: Dict[bytes, str]) -> None:
        """Take over what was acknowledged."""
        settled = set(done.settled)
        self.known = {k: e for k, e in self.known.items() if not settled.intersection(e.tokens)} | dict(done.added)
        self._reasons = {key: reasons.get(key) or self._reasons[key] for key in self.known}
        if done.added:
            self._pause = _FIRST if settled else min(self._pause * 2, _LONGEST)
            self._due = monotonic() + self._pause
