"""Says unasked when a server is away, and when it answers again."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
import structlog
from motor.motor_asyncio import AsyncIOMotorClient

from gears.in_mongo.client import Document, MongoError, addresses, ping
from gears.in_mongo.errors import describe as mongo_texts
from gears.in_redis import describe_errors as redis_texts
from gears.in_redis.client import FAILED, Redis, address

_WITHIN, _EVERY = 1.2, 0.4
"""Seconds that a server may take to answer, and between two questions: together less than two."""

log = structlog.get_logger()

Ask = Callable[[], Awaitable[object]]


async def watch(redis: Redis, mongo: "AsyncIOMotorClient[Document]") -> None:
    """Ask both servers all the time, until cancelled; the log has a line when one goes away, and when it is back."""
    servers: Mapping[str, Ask] = {
        f"Redis at {address(redis)}": redis.ping,
        f"MongoDB at {addresses(mongo)}": partial(ping, mongo, timeout=_WITHIN * 0.8),
    }
    async with anyio.create_task_group() as tasks:
        for server, ask in servers.items():
            tasks.start_soon(_watch, server, ask)


async def _watch(server: str, ask: Ask) -> None:
    away = False
    while True:
        reason = await _reason(ask)
        if reason and not away:
            log.error("a server is away", server=server, reason=reason)
        elif away and not reason:
            log.info("a server answers again", server=server)
        away = bool(reason)
        await anyio.sleep(_EVERY)


async def _reason(ask: Ask) -> str:
    """Why it doesn't answer; empty when it does."""
    try:
        with anyio.fail_after(_WITHIN):  # the driver's own deadline comes first, and says why
            await ask()
    except TimeoutError:
        return f"no answer within {_WITHIN:g} s"
    except MongoError as error:
        return mongo_texts.describe(error)
    except FAILED as error:
        return redis_texts.describe(error)
    return ""
