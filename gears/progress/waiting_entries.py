"""The entries of one key that wait to be committed."""

from collections.abc import Sequence
from dataclasses import dataclass

from gears.contract.entries import EXPIRE, FILL, Entry, decode_entry
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, EntryId, Token
from gears.in_redis.client import Redis
from gears.in_redis.scripts import script_text

MOST_SEARCHED = 10_000
"""Entries of the sync stream, the oldest, that are searched for a key."""

_PAGE = 1000

_SEARCH = script_text("find_entries_of_key")
"""What is in entries stays in Redis, which finds those of a key in a millisecond a thousand."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The entries of a key that wait to be committed.

    Args:
        entries: in their order.
        complete: whether there can't be more of them; else only the oldest entries were searched.
    """

    entries: Sequence[Entry]
    complete: bool

    @property
    def tokens(self) -> list[Token]:
        """Which entries these are."""
        return [entry.token for entry in self.entries]


async def waiting_of(redis: Redis, names: Names, key: str) -> Waiting:
    """Those of a key on the stream that tell of a write; not those that are set aside."""
    search, entries, start = redis.register_script(_SEARCH), list[Entry](), ZERO
    for _ in range(MOST_SEARCHED // _PAGE):
        found, last = await search(args=[key, names.stream, str(start), _PAGE])
        for entry_id, fields in found:
            entry = decode_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            if entry.event not in (FILL, EXPIRE):
                entries.append(entry)
        if last is None:
            return Waiting(entries, complete=True)
        start = EntryId.parse(last).next
    return Waiting(entries, complete=False)
