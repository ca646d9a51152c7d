"""What Redis lost of the sync stream before it was committed: gaps between what two runs of the server captured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from gears.redis import Redis
from gears.stream import REWIND, Entry, EntryId, Names

REMEMBERED_GAPS = 100
"""How many gaps are remembered, the latest."""


_LAST = (1 << 32) - 1


class Gap(NamedTuple):
    """Every entry strictly between these two is lost, if there was one; nothing else is said of them."""

    after: EntryId
    before: EntryId

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """The gap that `str` made this text of."""
        after, before = text.split()
        return cls(EntryId.parse(after), EntryId.parse(before))

    @classmethod
    def of(cls, entry_id: EntryId) -> Self:
        """The gap of this one entry."""
        ms, seq = entry_id
        return cls(EntryId(ms, seq - 1) if seq else EntryId(ms - 1, _LAST), entry_id.next)

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
        forgot. So it is before an entry that moves the stream on, and, as that may lie amid what is lost, behind it. An
        entry of another run that isn't above the last tells nothing: it was captured before the stream was moved on.
        """
        gaps = []
        for entry in entries:
            follows = entry.run in (b"", self.run) and entry.event != REWIND
            if self.run and not follows:
                if entry.id <= self.last:
                    continue
                if entry.id > self.last.next:
                    gaps.append(Gap(self.last, entry.id))
            if entry.run or entry.event == REWIND:
                self.run, self.last = entry.run or self.run, max(self.last, entry.id)
        return gaps


_REMEMBER = """
local gaps, known = redis.call('LRANGE', KEYS[1], 0, -1), {}
for _, gap in ipairs(gaps) do known[gap] = true end
redis.call('LTRIM', KEYS[1], 1, 0)
for i = 2, #ARGV do
    if not known[ARGV[i]] then redis.call('RPUSH', KEYS[1], ARGV[i]) end
end
for _, gap in ipairs(gaps) do redis.call('RPUSH', KEYS[1], gap) end
redis.call('LTRIM', KEYS[1], -ARGV[1], -1)
"""
"""LTRIM, which empties the list, takes no memory, so that Redis lets the rest through also when it is out of memory."""


async def remember_gaps(redis: Redis, names: Names, gaps: Iterable[Gap]) -> None:
    """Give Redis back the gaps it has forgotten; they come before those it knows."""
    await redis.execute_command("EVAL", _REMEMBER, 1, names.gaps, REMEMBERED_GAPS, *map(str, gaps))


async def gaps_of(redis: Redis, names: Names) -> list[Gap]:
    """The remembered gaps, oldest first."""
    texts: Any = await redis.lrange(names.gaps, 0, -1)
    return [Gap.parse(text) for text in texts]


async def is_lost(redis: Redis, names: Names, entry_id: EntryId) -> bool:
    """Whether this entry, if there was one, was lost before it was committed; False also when that is long ago."""
    return any(gap.after < entry_id < gap.before for gap in await gaps_of(redis, names))
