"""Acknowledging, in one atomic step: entries leave the stream, the watermark moves, whoever waits is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gears.aside import value_of
from gears.errors import LeaseLost, Rewound
from gears.gaps import REMEMBERED_GAPS, Gap
from gears.lane import Part, Wire
from gears.stream import GONE_TTL, EntryId, Names
from gears.watermark import encode_commit
from worker.aside import Sorted

_ACKNOWLEDGE = """
local function after(a, b)
    local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
    local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
    if a_ms ~= b_ms then return tonumber(a_ms or 0) > tonumber(b_ms) end
    return tonumber(a_seq) > tonumber(b_seq)
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lease lost' end
if (redis.call('GET', KEYS[2]) or '0-0') ~= ARGV[6] then return 'rewound' end
for i = 8, #KEYS do
    local mark = redis.call('GET', KEYS[i])
    if mark and not after(mark, ARGV[2]) then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
redis.call('XTRIM', KEYS[3], 'MINID', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2])
if ARGV[7] ~= '' then redis.call('SET', KEYS[5], ARGV[7]) end
local i = 11
for _ = 1, ARGV[9] do
    redis.call('HDEL', KEYS[7], ARGV[i])
    i = i + 1
end
for _ = 1, ARGV[10] do
    redis.call('HSET', KEYS[7], ARGV[i], ARGV[i + 1])
    i = i + 2
end
for g = i, #ARGV do
    redis.call('RPUSH', KEYS[6], ARGV[g])
    redis.call('LTRIM', KEYS[6], -ARGV[8], -1)
end
redis.call('PUBLISH', KEYS[4], ARGV[4])
return 'done'
"""
"""Fenced by the lease, and by the watermark: Redis may have been restarted without its tail a moment ago.

SET comes after what takes no memory: then Redis lets it through also when it is out of memory, and would otherwise
never get rid of the stream that fills it. Marks of deletes that aren't committed yet don't begin to expire.
"""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What has been committed.

    Args:
        lease: the committer's token.
        before: the watermark as it left it the last time.
        last: the last committed entry, the watermark from now on.
        marked: keys of which an entry is a delete.
        refused: the entries that were refused, each with the reason.
        gaps: what was lost on the way.
        run: the server run of the last entry; empty when it is the one that is known.
        aside: what is set aside, or no longer.
    """

    lease: str
    before: EntryId
    last: EntryId
    marked: Sequence[bytes]
    refused: Mapping[EntryId, str]
    gaps: Sequence[Gap]
    run: bytes
    aside: Sorted = field(default_factory=Sorted)


async def acknowledge(wire: Wire, names: Names, commit: Acknowledged) -> None:
    """Acknowledge what has been committed.

    Raises:
        LeaseLost: another committer is at work.
        Rewound: Redis has forgotten the last commit.
        RedisAway, OutcomeUnknown: it may be done or not.
    """
    prefix = len(names.prefix) + 1
    marks = [names.gone.encode() + key[prefix:] for key in commit.marked]
    keys: list[Part] = [names.lease, names.watermark, names.stream, names.channel, names.run, names.gaps, names.aside]
    added = {entry_id: value_of(key, e.last_event) for key, e in commit.aside.added.items() for entry_id in e.ids}
    keys += marks
    args: list[Part] = [
        commit.lease,
        str(commit.last),
        str(commit.last.next),
        encode_commit(
            commit.last, sorted(commit.refused.items()), commit.gaps, aside=added, settled=commit.aside.settled
        ),
        GONE_TTL,
        str(commit.before),
        commit.run,
        REMEMBERED_GAPS,
        len(commit.aside.settled),
        len(added),
        *map(str, commit.aside.settled),
        *(part for entry_id, value in added.items() for part in (str(entry_id), value)),
        *map(str, commit.gaps),
    ]
    done = await wire.send("EVAL", _ACKNOWLEDGE, len(keys), *keys, *args)
    if done == b"lease lost":
        raise LeaseLost("another committer took over")
    if done == b"rewound":
        raise Rewound("Redis was restarted, or emptied, and has forgotten the last commit")
