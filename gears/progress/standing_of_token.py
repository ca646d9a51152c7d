"""What became of a write, by its token: the same words after restarts of everything."""

from typing import Literal

from gears.contract.entries import decode_entry
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names, life_in
from gears.contract.write_tokens import ZERO, Token
from gears.in_mongo.log.batch_log import Log
from gears.in_mongo.log.batches import Acked
from gears.in_redis.client import Redis, read_at_once
from gears.progress.refusals import refusal_of

Standing = Literal["committed", "pending", "refused", "lost", "unknown"]


async def standing(redis: Redis, mapping: Mapping, log: Log, token: Token) -> Standing | None:
    """What became of a write.

    Args:
        redis: client with replies as bytes.
        mapping: of which it may be.
        log: the mapping's.
        token: the write's.

    Returns:
        `unknown` for one of a batch that Redis has forgotten, of which nobody knows whether all of it has come; None
        where the mapping never had such a write.

    Raises:
        MongoError, RedisError: a server is away.
    """
    names = Names(mapping.prefix)
    if token.life and not token.life.endswith(names.tag):
        return None
    life, text, waiting, aside = await read_at_once(
        redis,
        ("GET", names.life),
        ("GET", names.acked),
        ("XRANGE", names.stream, str(token.id), str(token.id)),
        ("HEXISTS", names.aside, str(token)),
    )
    waits = (decode_entry(i, dict(zip(fields[::2], fields[1::2], strict=True))).token for i, fields in waiting)
    if aside or token in waits:
        return "pending"
    if await refusal_of(redis, names, token) is not None:
        return "refused"
    acked = Acked.parse(text)
    if token.life == acked.token.life and token.id <= acked.token.id:
        return "committed"
    if token.life == life_in(life):
        return None
    return await _of_another_life(log, acked, token)


async def _of_another_life(log: Log, acked: Acked, token: Token) -> Standing | None:
    head, newest = await log.head(), await log.newest()
    if not token.life and (newest is None or token.life not in newest.lives):
        return None
    if token in head.lost:
        return "lost"
    if any(doubt.holds(token) for doubt in head.doubtful):
        return "unknown"
    if newest is None or token.id > newest.lives.get(token.life, ZERO):
        return "lost"
    if acked.version < newest.version and any(doubt.holds(token) for doubt in newest.doubtful):
        return "unknown"
    return "committed"
