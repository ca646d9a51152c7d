"""The latest refused entries, kept in Redis for writers that missed the announcement."""

from collections.abc import Iterable
from typing import Any

from gears.contract.redis_names import Names
from gears.contract.refusal import REMEMBERED_REFUSALS, Refusal
from gears.contract.write_tokens import EntryId, Token
from gears.in_redis.client import Redis
from gears.in_redis.scripts import script_text

_RECORD = script_text("record_refusals")
"""What frees memory comes first: so Redis lets it through also when it is out of memory."""

_RECORD_AT_ONCE = 1000


async def record_refusals(redis: Redis, names: Names, refusals: Iterable[Refusal]) -> None:
    """Remember refused entries; recording one again changes nothing."""
    members = [part for token, reason in refusals for part in (token.id.ms, f"{token} {reason}")]
    script = redis.register_script(_RECORD)
    for i in range(0, len(members), _RECORD_AT_ONCE):
        await script(keys=[names.refused], args=[REMEMBERED_REFUSALS, *members[i : i + _RECORD_AT_ONCE]])


async def refusals_from(redis: Redis, names: Names, first: EntryId) -> list[Refusal]:
    """The remembered refusals of entries with this id or a higher one, in the order of their ids."""
    members: Any = await redis.zrangebyscore(names.refused, first.ms, "+inf")
    refusals = [_parse(member) for member in members]
    return sorted((r for r in refusals if r[0].id >= first), key=lambda refusal: refusal[0].id)


async def refusal_of(redis: Redis, names: Names, token: Token) -> str | None:
    """Why this entry was refused; None when it wasn't, or when that is long ago."""
    members: Any = await redis.zrangebyscore(names.refused, token.id.ms, token.id.ms)
    return dict(_parse(member) for member in members).get(token)


def _parse(member: bytes) -> Refusal:
    token, _, reason = member.decode().partition(" ")
    return Token.parse(token), reason
