"""The servers, for a command: asked at once whether they are there, and named while they don't answer."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from motor.motor_asyncio import AsyncIOMotorClient

from gears.cli.command_line import saying_whom
from gears.in_mongo.client import Document, addresses, close_client, open_client, ping
from gears.in_redis.client import Redis, address, connect
from gears.process.settings import Settings

Mongo = AsyncIOMotorClient[Document]


@asynccontextmanager
async def open_mongo(settings: Settings) -> AsyncIterator["Mongo"]:
    """MongoDB, which has answered.

    Raises:
        ConfigError: MONGO_URI can't be used.
        MongoError: it doesn't answer.
    """
    mongo = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    asking = partial(ping, mongo, timeout=settings.mongo_timeout)
    try:
        async with saying_whom({f"MongoDB at {addresses(mongo)}": asking}):
            await asking()
            yield mongo
    finally:
        close_client(mongo)


@asynccontextmanager
async def open_both(settings: Settings) -> AsyncIterator[tuple[Redis, "Mongo"]]:
    """Redis and MongoDB, which have answered; raises as `open_mongo`, and `RedisError`."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(connect(settings.redis_url, timeout=settings.redis_timeout))
        await stack.enter_async_context(saying_whom({f"Redis at {address(redis)}": redis.ping}))
        await redis.ping()
        yield redis, await stack.enter_async_context(open_mongo(settings))
