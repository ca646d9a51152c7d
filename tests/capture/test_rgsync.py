"""What the tutorial's recipe does wrong, done right: a test per row of the table in docs/coming-from-rgsync.md."""

import json
import os
import sys
from typing import Any

import pytest
import redis as redis_py
from anyio import run_process
from redis.commands.json.path import Path

from gears.engines import open_engine
from tests.support.stack import Stack, eventually


async def stored_is(stack: Stack, document_id: str, expected: dict[str, Any] | None, within: float = 30) -> None:
    async def probe() -> bool:
        return await stack.stored(document_id) == expected

    await eventually(probe, within=within)


async def test_the_tutorials_script_delivers_within_a_second(stack: Stack) -> None:
    todo = {"id": "test_id", "name": "some todo", "description": "some description"}
    with redis_py.Redis(port=stack.setup.redis_port) as r:
        r.json().set("todos:test_id", Path.root_path(), todo)
        await stored_is(stack, "test_id", todo, within=1)
        r.json().set("todos:test_id", Path.root_path(), {"id": "test_id", "name": "some todo"})
        await stored_is(stack, "test_id", {"id": "test_id", "name": "some todo"}, within=1)
        r.delete("todos:test_id")
        await stored_is(stack, "test_id", None, within=1)


@pytest.mark.parametrize(
    ("awkward", "fits"),
    [({"name": "it's"}, True), ({"": 1}, True), ([1], False), ({"n": 2**63}, False), ({"n": 2**64}, False)],
    ids=["quote", "empty name", "root array", "unsigned", "above 64 bits"],
)
async def test_an_awkward_document_blocks_nothing(awkward: Any, fits: bool, stack: Stack, new_id: str) -> None:
    await stack.set(new_id, awkward)
    await stack.set(f"{new_id}-next", {"a": 1})
    await stored_is(stack, f"{new_id}-next", {"id": f"{new_id}-next", "a": 1})
    await stack.drained()
    stored = await stack.stored(new_id)
    if fits:
        assert stored == awkward | {"id": new_id}
    elif stored is not None:  # RedisJSON makes a float of what exceeds 64 bits, which MongoDB can hold
        assert stored == await stack.get(new_id) | {"id": new_id}
    else:
        assert await stack.get(new_id) is None


async def test_what_is_removed_in_redis_is_removed_in_mongodb(stack: Stack, new_id: str) -> None:
    await stack.set(new_id, {"a": 1, "b": {"c": 1, "d": 1}})
    await stored_is(stack, new_id, {"id": new_id, "a": 1, "b": {"c": 1, "d": 1}})
    await stack.redis_client.execute_command("JSON.DEL", f"todos:{new_id}", "$.b.c")
    await stored_is(stack, new_id, {"id": new_id, "a": 1, "b": {"d": 1}})
    await stack.set(new_id, {"e": 1})
    await stored_is(stack, new_id, {"id": new_id, "e": 1})


@pytest.mark.parametrize("document_id", ["5", "a:b", "a/b", "ü ñ", "*?[x]", "x" * 1024])
async def test_the_id_is_all_that_follows_the_prefix_and_a_string(document_id: str, stack: Stack) -> None:
    for n in range(2):
        await stack.set(document_id, {"n": n})
        await stored_is(stack, document_id, {"id": document_id, "n": n})
    assert await stack.todos.count_documents({"id": document_id}) == 1
    await stack.redis_client.delete(f"todos:{document_id}")
    await stored_is(stack, document_id, None)


async def test_installing_the_recipe_again_loses_no_backlog(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    await own_stack.set("before", {"a": 1})
    engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[0])
    assert await engine.install() is False
    assert await engine.remove() is True
    assert await engine.remove() is False
    assert await engine.install() is True
    await own_stack.set("after", {"a": 1})
    assert await own_stack.redis_client.xlen("sync:{todos}") == 2
    await own_stack.worker.start()
    for document_id in ("before", "after"):
        await stored_is(own_stack, document_id, {"id": document_id, "a": 1})


async def test_the_id_has_a_unique_index(stack: Stack) -> None:
    indexes = await stack.todos.index_information()
    assert any(index["key"] == [("id", 1)] and index.get("unique") for index in indexes.values())


async def test_documents_that_rgsync_left_are_taken_over(stack: Stack, new_id: str) -> None:
    await stack.todos.insert_one({"id": new_id, "stale": True})
    await stack.set(new_id, {"id": new_id, "a": 1})
    await stored_is(stack, new_id, {"id": new_id, "a": 1})
    assert await stack.todos.count_documents({"id": new_id}) == 1
    await stack.todos.insert_one({"id": f"{new_id}-d", "stale": True})
    await stack.set(f"{new_id}-d", {})
    await stack.redis_client.delete(f"todos:{new_id}-d")
    await stored_is(stack, f"{new_id}-d", None)


async def test_data_that_rgsync_left_ends_with_zero_drift(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    for document_id, document in {
        "a": {"id": "a", "x": 1},
        "5": {"id": 5, "n": 3},
        "twice": {"id": "twice", "n": 2},
        "never": {"id": "never", "delivered": True},
    }.items():
        await own_stack.set(document_id, document)
    await own_stack.todos.insert_many(
        [{"id": "a", "x": 0, "stale": True}, {"id": "twice", "n": 1}, {"id": "twice", "n": 2}]
        + [{"id": 5, "n": n} for n in (1, 2, 3)]
        + [{"id": 9, "deleted in Redis": True}]
    )
    await own_stack.worker.start(wait=False)

    async def blocked() -> bool:
        return await own_stack.redis_client.hget("sync:{todos}:worker", "state") == b"blocked"

    await eventually(blocked)
    await own_stack.todos.delete_one({"id": 9})
    async for found in own_stack.todos.find({}).sort("_id", -1):  # as the script in the docs does
        document_id = str(found["id"])
        if await own_stack.todos.find_one({"id": document_id, "_id": {"$gt": found["_id"]}}):
            await own_stack.todos.delete_one({"_id": found["_id"]})
        else:
            await own_stack.todos.update_one({"_id": found["_id"]}, {"$set": {"id": document_id}})
    await own_stack.worker.wait_ready()
    command = [sys.executable, "-m", "worker", "audit", "--repair", "--json", "--mapping", "todos"]
    audit = await run_process(command, env=os.environ | own_stack.env, check=False, stderr=None)
    assert audit.returncode == 0
    again = json.loads((await run_process(command, env=os.environ | own_stack.env, stderr=None)).stdout)
    assert {k: again[k] for k in ("compared", "equal", "missing", "stale", "ahead", "cold", "foreign")} == {
        "compared": 4,
        "equal": 4,
        "missing": 0,
        "stale": 0,
        "ahead": 0,
        "cold": 0,
        "foreign": 0,
    }
    assert await own_stack.stored("5") == {"id": "5", "n": 3}
    assert await own_stack.stored("a") == {"id": "a", "x": 1}
    assert await own_stack.stored("never") == {"id": "never", "delivered": True}
    assert await own_stack.todos.count_documents({}) == 4
