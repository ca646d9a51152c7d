"""Reading what there is to commit: the next entries of the sync stream and the present states of their keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gears.lane import Wire
from gears.redis import Redis
from gears.stream import DELETE_EVENTS, Entry, EntryId, Names, decode_entry
from worker.plan import Gone, KeyEntries, State, coalesce

JSON_TYPE = b"ReJSON-RL"

READ_BYTES = 4 * 1024 * 1024
"""How much of documents is read at a time, the last one not counted."""

_WAIT_MS = 500

_PAGES = 4
"""A batch of b documents may have this many times b entries."""

_READ = """
local after, most, most_bytes, pages = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local taken, states, known, bytes = {}, {}, {}, 0
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local watermark = redis.call('GET', KEYS[2]) or '0-0'
local time = redis.call('TIME')
for page = 1, pages do
    local entries = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', most)
    for _, entry in ipairs(entries) do
        local fields, key = entry[2], ''
        for i = 1, #fields, 2 do
            if fields[i] == 'k' then key = fields[i + 1] end
        end
        if key ~= '' and not known[key] then
            if #states == most or bytes > most_bytes then return {taken, states, newest, watermark, time} end
            known[key] = true
            local document = redis.pcall('JSON.GET', key)
            if type(document) == 'string' then
                bytes = bytes + #document
                states[#states + 1] = {key, document}
            else
                local mark = redis.call('GET', ARGV[5] .. string.sub(key, tonumber(ARGV[6])))
                states[#states + 1] = {key, false, redis.call('TYPE', key), mark}
            end
        end
        taken[#taken + 1] = entry
        after = entry[1]
    end
    if #entries < most or #states == most then break end
end
return {taken, states, newest, watermark, time}
"""
"""In one atomic step, so that what tells a deleted key from a lost one belongs to its state."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is committed at a time.

    Args:
        entries: in order.
        keys: what they say of each key.
        states: each key's present state.
        newest: the stream's newest entry when they were read, which may be a later one; none of them is newer.
        watermark: the watermark in Redis at that moment.
        clock: the id that Redis's clock would have given then.
    """

    entries: Sequence[Entry]
    keys: Sequence[KeyEntries]
    states: dict[bytes, State]
    newest: EntryId
    watermark: EntryId
    clock: EntryId

    @property
    def is_large(self) -> bool:
        """Whether its documents take much memory."""
        return sum(len(state) for state in self.states.values() if isinstance(state, bytes)) > READ_BYTES // 4


class Reader:
    """Reads a mapping's sync stream.

    Args:
        wire: nobody else's, since waiting for entries blocks it.
        names: the mapping's names.
    """

    def __init__(self, wire: Wire, names: Names) -> None:
        self._wire = wire
        self._names = names

    async def read(self, after: EntryId, most: int, *, wait: bool) -> Batch:
        """The batch that follows an entry, in one round trip; it has no entries when there are none.

        Args:
            after: the entry.
            most: documents in the batch.
            wait: whether to wait for entries a moment, when there are none.
        """
        stream, gone, start = self._names.stream, self._names.gone, len(self._names.prefix) + 2
        waiting = [("XREAD", "COUNT", 1, "BLOCK", _WAIT_MS, "STREAMS", stream, str(after))] if wait else []
        *_, (raw, found, newest, watermark, time) = await self._wire.send_all(
            *waiting,
            ("EVAL", _READ, 2, stream, self._names.watermark, str(after), most, READ_BYTES, _PAGES, gone, start),
        )
        entries = [
            decode_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in raw
        ]
        keys = coalesce(entry for entry in entries if entry.key)
        as_of = EntryId.parse(newest[0][0]) if newest else after
        for key_entries in keys.values():
            key_entries.as_of = as_of
        states = {key: _state(keys[key], *state) for key, *state in found}
        clock = EntryId(int(time[0]) * 1000 + int(time[1]) // 1000, 0)
        return Batch(entries, list(keys.values()), states, as_of, EntryId.parse(watermark), clock)


def _state(entries: KeyEntries, document: bytes | None, kind: bytes = b"", mark: bytes | None = None) -> State:
    if document is not None:
        return document
    if kind not in (b"none", JSON_TYPE):
        return Gone.FOREIGN
    deleted_later = mark is not None and EntryId.parse(mark) >= entries.ids[-1]
    return Gone.DELETED if deleted_later or entries.last_event in DELETE_EVENTS else Gone.LOST


async def readable(redis: Redis, keys: Sequence[bytes]) -> int:
    """How many of these keys, from the first on, to read at a time; one at least."""
    if len(keys) < 2:
        return len(keys)
    async with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.execute_command("JSON.DEBUG", "MEMORY", key)
        sizes: Any = await pipeline.execute(raise_on_error=False)
    total = 0
    for n, size in enumerate(sizes):
        total += size if isinstance(size, int) else 0  # another type has none
        if total > READ_BYTES:
            return max(1, n)
    return len(keys)
