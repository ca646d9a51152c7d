"""What commands of plain clients do to cold keys, as docs/cold-keys.md says: each acts on what Redis holds, nothing."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.support.stack import Stack, eventually

BEFORE = {"a": 1, "n": 1}
OTHER = {"o": 1}


async def made_cold(stack: Stack, redis: Redis, document_id: str) -> None:
    """A document that MongoDB holds and whose key has expired."""
    await stack.set(document_id, BEFORE)
    await stack.drained()
    await redis.pexpire(f"todos:{document_id}", 1)

    async def cold() -> bool:
        return not await redis.exists(f"todos:{document_id}")

    await eventually(cold)


@pytest.mark.parametrize(
    ("command", "after"),
    [
        ('JSON.MERGE <key> $ {"b":2}', {"b": 2}),
        ('JSON.SET <key> $ {"new":1} NX', {"new": 1}),
        ("RENAMENX <other> <key>", OTHER),
        ("COPY <other> <key>", OTHER),
        ("COPY <key> <other>-2", BEFORE),
        ("RENAME <key> <other>-2", BEFORE),
        ("JSON.SET <key> $.b 2", BEFORE),
        ("JSON.NUMINCRBY <key> $.n 1", BEFORE),
        ("DEL <key>", BEFORE),
    ],
)
async def test_a_command_acts_on_what_redis_holds(
    command: str, after: dict[str, Any], stack: Stack, redis: Redis, new_id: str
) -> None:
    await made_cold(stack, redis, new_id)
    await stack.set(f"{new_id}-other", OTHER)
    words = command.replace("<key>", f"todos:{new_id}").replace("<other>", f"todos:{new_id}-other").split()
    try:
        await redis.execute_command(*words)
    except ResponseError:
        assert after == BEFORE
    await stack.drained()
    assert await stack.stored(new_id) == after | {"id": new_id}


@pytest.mark.parametrize("seconds", [0, -1])
async def test_an_expiry_that_is_over_is_a_delete(seconds: int, stack: Stack, redis: Redis, new_id: str) -> None:
    await stack.set(new_id, BEFORE)
    await stack.drained()
    await redis.expire(f"todos:{new_id}", seconds)
    await stack.drained()
    assert await stack.stored(new_id) is None


async def test_a_document_that_was_read_back_has_no_expiry(stack: Stack, redis: Redis, new_id: str, api: Any) -> None:
    await made_cold(stack, redis, new_id)
    assert (await api.get(f"/todos/{new_id}")).json() == {"id": new_id, **BEFORE}
    assert await redis.ttl(f"todos:{new_id}") == -1
