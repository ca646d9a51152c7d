"""A deployment of before there were terms and lives is taken over by starting the new workers, then APIs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import json_util

from gears.contract.redis_names import Names
from tests.loss.test_rewind import in_mongodb, in_redis, put, recovered, standing
from tests.support.stack import Stack

BEFORE = Path(__file__).parent / "before_terms"
NAMES = Names("notes")
TOKENS: dict[str, str] = json.loads((BEFORE / "tokens.json").read_text())
COMMITTED = {str(n): n for n in range(20) if n % 5} | {"1": 101}
EXPECTED = {i: n for i, n in COMMITTED.items() if i != "4"} | {"3": 103, "plain": 1}


@pytest_asyncio.fixture(loop_scope="session")
async def before(own_stack: Stack) -> Stack:
    """Redis and MongoDB as they were left behind."""
    shutil.copytree(BEFORE / "appendonlydir", own_stack.folder / "redis" / "appendonlydir")
    await own_stack.start(own_stack.redis, own_stack.mongo)
    for name, documents in json_util.loads((BEFORE / "mongo.json").read_text()).items():
        if documents:
            await own_stack.mongo_client.test[name].insert_many(documents)
    return own_stack


async def both_sides(stack: Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers in Redis and in MongoDB, by id."""
    sides = (await in_redis(stack), await in_mongodb(stack))
    return tuple({i: document["n"] for i, document in side.items()} for side in sides)  # type: ignore[return-value]


async def test_what_was_acknowledged_is_kept_and_what_waits_is_committed(before: Stack) -> None:
    versions = [found["_sync"]["v"] async for found in before.mongo_client.test.notes.find({}, {"_sync": 1})]
    await before.start(before.worker, before.api)
    await recovered(before)
    assert await both_sides(before) == (EXPECTED, EXPECTED)
    assert {name: await standing(before, token) for name, token in TOKENS.items()} == dict.fromkeys(TOKENS, "committed")
    found = await before.mongo_client.test.notes.find_one({"id": "7"}) or {}
    assert found["_sync"]["v"] in versions, "what wasn't written is not written again"
    for document_id in ("4", "0"):
        assert (await before.client.get(f"/notes/{document_id}")).status_code == 404
    await put(before, "7", 8)
    found = await before.mongo_client.test.notes.find_one({"id": "7"}) or {}
    assert (found["n"], found["_sync"]["v"] > max(versions)) == (8, True)
    left = [name.decode() async for name in before.redis_client.scan_iter("sync:{notes}*")]
    assert not {NAMES.watermark, f"{NAMES.stream}:run", f"{NAMES.stream}:gaps"} & set(left)


@pytest.mark.parametrize("lost", ["tail", "all"])
async def test_what_redis_had_forgotten_before_is_given_back(before: Stack, lost: str) -> None:
    redis = before.redis_client
    await redis.execute_command("TFUNCTION", "DELETE", "writethrough_notes")
    if lost == "all":
        await redis.flushall()
    else:
        await redis.set(NAMES.watermark, "1-0")
        await redis.delete(NAMES.stream)
        await redis.execute_command("JSON.SET", "notes:1", "$", '{"id":"1","n":1}')
        await redis.execute_command("JSON.SET", "notes:3", "$", '{"id":"3","n":3}')
        await redis.execute_command("JSON.SET", "notes:5", "$", '{"id":"5","n":5}')
        await redis.delete("notes:plain")
    await before.start(before.worker, before.api)
    await recovered(before)
    expected = {**COMMITTED, "4": 4}
    assert (await both_sides(before))[1] == expected
    if lost == "all":
        assert (await both_sides(before))[0] == expected
    assert (await before.client.get("/notes/5")).status_code == 404
    assert (await before.client.get("/notes/1")).json()["n"] == 101
    assert await standing(before, TOKENS["committed"]) == "committed"
    assert await standing(before, TOKENS["pending"]) == "lost"
