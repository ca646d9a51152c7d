"""Every event that changes a JSON document reaches MongoDB, from a plain client; the others change nothing there."""

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.support.stack import Stack, eventually

Commands = list[tuple[str, ...]]

BEFORE: dict[str, Any] = {"n": 1, "s": "a", "l": [1, 2, 3], "t": True, "o": {"x": 1}}


def _event(*commands: tuple[str, ...], after: Any) -> tuple[Commands, Any]:
    return list(commands), after


WITHOUT_O = {name: value for name, value in BEFORE.items() if name != "o"}

EVENTS: dict[str, tuple[Commands, Any]] = {
    "json.set": _event(("JSON.SET", "<key>", "$.n", "2"), after=BEFORE | {"n": 2}),
    "json.del": _event(("JSON.DEL", "<key>", "$.o"), after=WITHOUT_O),
    "json.merge": _event(("JSON.MERGE", "<key>", "$", '{"o":null,"m":1}'), after=WITHOUT_O | {"m": 1}),
    "json.mset": _event(("JSON.MSET", "<key>", "$", '{"z":1}'), after={"z": 1}),
    "json.numincrby": _event(("JSON.NUMINCRBY", "<key>", "$.n", "4"), after=BEFORE | {"n": 5}),
    "json.nummultby": _event(("JSON.NUMMULTBY", "<key>", "$.n", "4"), after=BEFORE | {"n": 4}),
    "json.strappend": _event(("JSON.STRAPPEND", "<key>", "$.s", '"b"'), after=BEFORE | {"s": "ab"}),
    "json.arrappend": _event(("JSON.ARRAPPEND", "<key>", "$.l", "4"), after=BEFORE | {"l": [1, 2, 3, 4]}),
    "json.arrinsert": _event(("JSON.ARRINSERT", "<key>", "$.l", "0", "0"), after=BEFORE | {"l": [0, 1, 2, 3]}),
    "json.arrpop": _event(("JSON.ARRPOP", "<key>", "$.l"), after=BEFORE | {"l": [1, 2]}),
    "json.arrtrim": _event(("JSON.ARRTRIM", "<key>", "$.l", "0", "0"), after=BEFORE | {"l": [1]}),
    "json.toggle": _event(("JSON.TOGGLE", "<key>", "$.t"), after=BEFORE | {"t": False}),
    "json.clear": _event(("JSON.CLEAR", "<key>", "$.l"), after=BEFORE | {"l": []}),
    "json.del of the root": _event(("JSON.DEL", "<key>"), after=None),
    "del": _event(("DEL", "<key>"), after=None),
    "unlink": _event(("UNLINK", "<key>"), after=None),
    "rename_from": _event(("RENAME", "<key>", "elsewhere:<id>"), after=None),
    "rename_to": _event(
        ("JSON.SET", "elsewhere:<id>", "$", '{"r":1}'), ("RENAME", "elsewhere:<id>", "<key>"), after={"r": 1}
    ),
    "copy_to": _event(
        ("JSON.SET", "elsewhere:<id>", "$", '{"c":1}'), ("COPY", "elsewhere:<id>", "<key>", "REPLACE"), after={"c": 1}
    ),
    "move_from": _event(("MOVE", "<key>", "1"), after=None),
}


def _for(new_id: str, command: tuple[str, ...]) -> list[str]:
    return [part.replace("<key>", f"todos:{new_id}").replace("<id>", new_id) for part in command]


async def _run(redis: Redis, commands: Commands, new_id: str) -> None:
    for command in commands:
        await redis.execute_command(*_for(new_id, command))


async def _stored_becomes(stack: Stack, new_id: str, wanted: Callable[[Any], bool]) -> None:
    async def probe() -> bool:
        return wanted(await stack.stored(new_id))

    await eventually(probe, within=5)


@pytest.mark.parametrize("event", EVENTS)
async def test_an_event_reaches_mongodb(event: str, stack: Stack, redis: Redis, new_id: str) -> None:
    commands, after = EVENTS[event]
    await stack.set(new_id, BEFORE)
    await _stored_becomes(stack, new_id, lambda stored: stored == BEFORE | {"id": new_id})
    await _run(redis, commands, new_id)
    expected = None if after is None else after | {"id": new_id}
    await _stored_becomes(stack, new_id, lambda stored: stored == expected)


async def test_a_restored_key_reaches_mongodb(stack: Stack, redis: Redis, new_id: str) -> None:
    await redis.execute_command("JSON.SET", f"elsewhere:{new_id}", "$", '{"d":1}')
    dumped = await redis.dump(f"elsewhere:{new_id}")
    assert dumped is not None
    await redis.restore(f"todos:{new_id}", 0, dumped)
    await _stored_becomes(stack, new_id, lambda stored: stored == {"id": new_id, "d": 1})


async def test_a_key_moved_in_from_another_database_reaches_mongodb(stack: Stack, redis: Redis, new_id: str) -> None:
    async with Redis.from_url(stack.redis_url.removesuffix("/0") + "/1", protocol=2) as other:
        await other.execute_command("JSON.SET", f"todos:{new_id}", "$", '{"m":1}')
        await other.move(f"todos:{new_id}", 0)
    await _stored_becomes(stack, new_id, lambda stored: stored == {"id": new_id, "m": 1})


@pytest.mark.parametrize(
    "commands",
    [
        [("GET", "todos:<id>-none")],
        [("HSET", "todos:<id>-h", "f", "v", "g", "v"), ("HDEL", "todos:<id>-h", "f")],
        [("SET", "todos:<id>-s", "v"), ("APPEND", "todos:<id>-s", "w"), ("EXPIRE", "todos:<id>-s", "100")],
        [("LPUSH", "elsewhere:<id>", "v"), ("RENAME", "elsewhere:<id>", "todos:<id>-l")],
        [("JSON.SET", "todosx:<id>", "$", '"another prefix"')],
        [("JSON.GET", "todos:<id>-none")],
    ],
    ids=["keymiss", "hash", "string", "list renamed to", "other prefix", "json read"],
)
async def test_other_events_and_types_are_not_captured(
    commands: Commands, stack: Stack, redis: Redis, new_id: str
) -> None:
    await stack.drained()
    before = (await redis.xinfo_stream("sync:{todos}"))["last-generated-id"]
    await _run(redis, commands, new_id)
    assert (await redis.xinfo_stream("sync:{todos}"))["last-generated-id"] == before


async def test_an_expired_key_stays_in_mongodb(stack: Stack, redis: Redis, new_id: str) -> None:
    await stack.set(new_id, {"a": 1})
    await _stored_becomes(stack, new_id, lambda stored: stored is not None)
    await redis.pexpire(f"todos:{new_id}", 1)

    async def expired() -> bool:
        return not await redis.exists(f"todos:{new_id}")

    await eventually(expired)
    await stack.set(f"{new_id}-later", {})
    await _stored_becomes(stack, f"{new_id}-later", lambda stored: stored is not None)
    assert await stack.stored(new_id) == {"id": new_id, "a": 1}


async def test_a_transaction_and_a_script_are_captured_whole(stack: Stack, redis: Redis, new_id: str) -> None:
    async with redis.pipeline(transaction=True) as pipeline:
        for n in range(5):
            pipeline.execute_command("JSON.SET", f"todos:{new_id}-{n}", "$", "{}")
        pipeline.delete(f"todos:{new_id}-0")
        await pipeline.execute()
    await redis.eval("redis.call('JSON.SET', KEYS[1], '$', ARGV[1])", 1, f"todos:{new_id}-s", '{"by":"script"}')
    await _stored_becomes(stack, f"{new_id}-s", lambda stored: stored == {"id": f"{new_id}-s", "by": "script"})
    assert await stack.stored(f"{new_id}-0") is None
    assert all([await stack.stored(f"{new_id}-{n}") is not None for n in range(1, 5)])
