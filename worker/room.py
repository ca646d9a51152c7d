"""Moving the sync stream on by an entry that tells of no key, so that all that come have higher ids.

Each is one script, so that no write comes in between and nobody stops halfway.
"""

from collections.abc import Sequence
from typing import Any

from gears.checkpoint import Checkpoint
from gears.errors import LeaseLost
from gears.gaps import REMEMBERED_GAPS
from gears.redis import Redis
from gears.stream import REWIND, EntryId, Names

_LEAP_MS = 60_000

_REMEMBERED = 20
"""How many restarts are remembered, the latest."""

_NEWEST = """
local function parts(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return ms + math.floor(seq / 1048576), seq % 1048576
end
local function below(one, other)
    local ms, seq = parts(one)
    local other_ms, other_seq = parts(other)
    return ms < other_ms or (ms == other_ms and seq < other_seq)
end
local newest = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then newest = info[i + 1] end
    end
end
"""

_MAKE_ROOM = f"""{_NEWEST}
if below(newest, ARGV[1]) then
    redis.call('APPEND', KEYS[2], newest .. ' ' .. ARGV[1] .. ' ')
    redis.call('XADD', KEYS[1], ARGV[2], 'e', 'move on')
end
"""
"""Were writes to come in between, what is noted as skipped would have been given to writes, whose documents would count
as newer than anything that Redis holds, whatever it is given since."""

_LEASED = """
if redis.call('GET', KEYS[#KEYS]) ~= ARGV[#ARGV] then return 'lease lost' end
"""
"""What a committer that was held up says of Redis is past."""

_FORGET = f"""{_LEASED}{_NEWEST}
redis.call('LTRIM', KEYS[2], 1 - ARGV[6], -1)
local time, id = redis.call('TIME'), '*'
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last, floor, reserved, run = (parts(newest)), (parts(ARGV[2])), (parts(ARGV[8])), tonumber(ARGV[7], 16)
if reserved >= now then id = string.format('%.0f-0', reserved + 1 + run % 1000) end
if last > now or floor >= now then
    id = string.format('%.0f-0', math.max(last, floor, reserved) + ARGV[4] + run % ARGV[4])
    local present, oldest = string.format('%.0f-0', now), redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
    local since, first = newest, oldest and oldest[1] or present
    if below(since, ARGV[3]) then since = ARGV[3] end
    if below(present, first) then first = present end
    for _, gap in ipairs({{ {{ARGV[3], first}}, {{since, present}} }}) do
        if below(gap[1], gap[2]) then
            redis.call('RPUSH', KEYS[3], gap[1] .. ' ' .. gap[2])
            redis.call('LTRIM', KEYS[3], -ARGV[5], -1)
        end
    end
end
local ms, seq = parts(redis.call('XADD', KEYS[1], id, 'e', '{REWIND}'))
if seq < 2 then ms, seq = ms - 1, seq + 1048576 end
redis.call('RPUSH', KEYS[2], string.format('%s %.0f-%.0f %s', ARGV[1], ms, seq - 2, ARGV[7]))
return string.format('%.0f-%.0f', ms, seq - 1)
"""
"""Redis numbers entries by its clock. This one comes after what was reserved. Where ids run ahead of the clock, it
leaps over those that may be lost, but not to where another run has leapt, which may be lost too; and if Redis was
emptied meanwhile, so that it gave ids by the clock again, those since then that are not on the stream may be lost too.

LTRIM takes no memory and comes first, so that Redis lets the rest through also when it is out of memory: nothing would
be committed, and no memory freed.
"""


_CHECKED = f"""{_LEASED}
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
"""
"""DEL comes first for the reason given above."""

_END = f"""{_LEASED}
redis.call('LTRIM', KEYS[2], 0, -1)
redis.call('XADD', KEYS[1], '*', 'e', '{REWIND}')
"""
"""LTRIM, which changes nothing here, comes first for the reason given above."""


async def make_room(redis: Redis, names: Names, version: int) -> None:
    """Move the stream on above this version, noting what it skips: keys yet to be compared are ahead too."""
    highest = EntryId.of_version(version)
    keys = (names.stream, names.skipped)
    await redis.execute_command("EVAL", _MAKE_ROOM, len(keys), *keys, str(highest), str(highest.next))


async def _leased(redis: Redis, names: Names, script: str, *keys: str, args: Sequence[str | bytes | int]) -> Any:
    done = await redis.execute_command("EVAL", script, len(keys) + 1, *keys, names.lease, *args)
    if done == b"lease lost":
        raise LeaseLost("another committer took over")
    return done


async def forget(redis: Redis, names: Names, run: bytes, checkpoint: Checkpoint, *, after: EntryId, token: str) -> int:
    """Draw a line under what Redis may have forgotten.

    Args:
        redis: client with replies as bytes.
        names: the mapping's names.
        run: the present run of the server.
        checkpoint: how far MongoDB is; what comes from now on has higher versions, also than what is reserved.
        after: what MongoDB holds with a version above this, and doesn't get from now on, Redis may have forgotten.
        token: the lease's.

    Returns:
        A version above all that there are and below all that come, for documents that Redis is given back.

    Raises:
        LeaseLost: another committer is at work.
    """
    keys = (names.stream, names.forgotten, names.gaps)
    numbers = (_LEAP_MS, REMEMBERED_GAPS, _REMEMBERED)
    floor = max(checkpoint.newest, checkpoint.fence)
    args = (str(after), str(floor), str(checkpoint.clock), *numbers, run, str(checkpoint.reserved), token)
    return EntryId.parse(await _leased(redis, names, _FORGET, *keys, args=args)).version


async def end_rewind(redis: Redis, names: Names, token: str) -> None:
    """Add an entry behind which Redis has all that it was given back: a state of Redis that has it has that, too.

    Raises:
        LeaseLost: another committer is at work.
    """
    await _leased(redis, names, _END, names.stream, names.forgotten, args=(token,))


async def mark_checked(redis: Redis, names: Names, run: bytes, token: str) -> None:
    """Say that in this run of the server Redis has been given back what it had forgotten.

    Raises:
        LeaseLost: another committer is at work.
    """
    await _leased(redis, names, _CHECKED, names.checked, args=(run, token))


async def may_have_forgotten(redis: Redis, names: Names, run: bytes) -> bool:
    """Whether nothing was committed in this run of the server, and no line drawn."""
    committed: Any = await redis.get(names.run)
    lines: Any = await redis.lrange(names.forgotten, -1, -1)
    return run not in {committed, *(line.split()[-1] for line in lines)}
