"""What Redis lost of the sync stream before it was committed: gaps between what two runs of the server captured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from gears.redis import Redis
from gears.stream import Entry, EntryId, Names

REMEMBERED_GAPS = 100
"""How many gaps are remembered, the latest."""


class Gap(NamedTuple):
    """Every entry strictly between these two is lost, if there was one; nothing else is said of them."""

    after: EntryId
    before: EntryId

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """The gap that `str` made this text of."""
        after, before = text.split()
        return cls(EntryId.parse(after), EntryId.parse(before))

    def __str__(self) -> str:
        return f"{self.after} {self.before}"


@dataclass(slots=True)
class Runs:
    """The committed entries up to now: which run of the server captured the last of them.

    Args:
        run: that run; empty when nothing is known of it.
        last: the last of these entries, or the last that is known to be committed.
    """

    run: bytes
    last: EntryId

    def follow(self, entries: Iterable[Entry]) -> list[Gap]:
        """Go on to these entries; returns the gaps before and between them.

        What a server captured before it was restarted comes before what it captured afterwards; in between is what it
        forgot. An entry that names no run tells nothing: the one that moves the stream on may lie amid what is lost.
        """
        gaps = []
        for entry in entries:
            if not entry.run:
                continue
            if self.run and entry.run != self.run and self.last < entry.id:
                gaps.append(Gap(self.last, entry.id))
            self.run, self.last = entry.run, max(self.last, entry.id)
        return gaps


async def gaps_of(redis: Redis, names: Names) -> list[Gap]:
    """The remembered gaps, oldest first."""
    texts: Any = await redis.lrange(names.gaps, 0, -1)
    return [Gap.parse(text) for text in texts]


async def is_lost(redis: Redis, names: Names, entry_id: EntryId) -> bool:
    """Whether this entry, if there was one, was lost before it was committed; False also when that is long ago."""
    return any(gap.after < entry_id < gap.before for gap in await gaps_of(redis, names))
