"""Listening to channels of Redis, as the API does to commits."""

from collections.abc import AsyncIterator
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
import pytest_asyncio
from redis import Redis as BlockingRedis

from gears.errors import RedisAway
from gears.in_redis.client import Redis, RedisError, connect
from gears.in_redis.subscription import subscribed
from tests.support.stack import Stack, eventually

Said = list[tuple[bytes, bytes]]


@pytest_asyncio.fixture(loop_scope="session")
async def listener(stack: Stack) -> AsyncIterator[Redis]:
    """A client with connections of its own."""
    redis = connect(stack.redis_url, timeout=1)
    try:
        yield redis
    finally:
        await redis.aclose()


async def test_what_is_said_after_the_confirmation_waits_until_somebody_listens(redis: Redis, listener: Redis) -> None:
    channels = [uuid4().hex, uuid4().hex]
    heard: Said = []
    async with subscribed(listener, channels) as subscription:
        for n in range(500):
            assert await redis.publish(channels[n % 2], f"{n}" * 1000) == 1
        subscription.listen(lambda channel, said: heard.append((channel, said)))
        assert await redis.publish(channels[0], "end") == 1

        async def ended() -> bool:
            return bool(heard) and heard[-1][1] == b"end"

        await eventually(ended)
    expected = [(channels[n % 2].encode(), f"{n}".encode() * 1000) for n in range(500)]
    assert heard == [*expected, (channels[0].encode(), b"end")]


async def test_what_comes_together_with_the_confirmation_waits_too(stack: Stack, listener: Redis) -> None:
    channel = uuid4().hex
    heard: Said = []
    with BlockingRedis.from_url(stack.redis_url) as blocking:
        async with anyio.create_task_group() as tasks:

            async def any_heard() -> bool:
                return bool(heard)

            async def listen() -> None:
                async with subscribed(listener, [channel]) as subscription:
                    await anyio.lowlevel.checkpoint()
                    subscription.listen(lambda channel, said: heard.append((channel, said)))
                    await eventually(any_heard)

            tasks.start_soon(listen)
            while not blocking.publish(channel, "early"):  # nothing is read from the subscription's socket meanwhile
                await anyio.lowlevel.checkpoint()
    assert heard == [(channel.encode(), b"early")]


async def test_a_lost_connection_is_noticed_at_once(redis: Redis, listener: Redis) -> None:
    channel = uuid4().hex
    async with subscribed(listener, [channel]) as subscription:
        subscription.listen(lambda *_: None)
        await subscription.lost(within=0.01)  # returns
        mine = [each["id"] for each in await redis.client_list(_type="pubsub") if each["cmd"] == "subscribe"]
        assert mine
        for client in mine:
            await redis.execute_command("CLIENT", "KILL", "ID", client)
        with anyio.fail_after(5), pytest.raises(RedisAway):
            await subscription.lost(within=60)


async def test_a_subscription_that_is_not_allowed_is_an_error(stack: Stack, redis: Redis) -> None:
    user = uuid4().hex
    await redis.execute_command("ACL", "SETUSER", user, "on", ">secret", "+@all", "~*", "resetchannels")
    denied = connect(stack.redis_url.replace("://", f"://{user}:secret@"), timeout=1)
    try:
        with pytest.raises(RedisError, match="NOPERM"):
            async with subscribed(denied, ["other", "another"]):
                pass
    finally:
        await denied.aclose()
        await redis.acl_deluser(user)


async def test_a_redis_that_does_not_answer_is_away(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis)
    redis = connect(own_stack.redis_url, timeout=1)
    try:
        own_stack.redis.freeze()
        with anyio.fail_after(5), pytest.raises(RedisAway):
            async with subscribed(redis, ["commits"]):
                pass
    finally:
        own_stack.redis.thaw()
        await redis.aclose()
