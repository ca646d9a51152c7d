"""Cold documents are kept, unless a team without eviction asks for their deletion and nothing speaks against it."""

import shutil
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from gears.engines import Engine, open_engine
from gears.in_mongo.log.batches import Acked
from tests.audit.test_audit import audit
from tests.support.engines import uncaptured
from tests.support.stack import Stack, eventually
from worker.audit.repair import delete_absent

PATIENT = {"WT_MONGO_TIMEOUT": "30"}  # the machine may be busy
DELETE = {"WT_COLD": "delete"} | PATIENT


@pytest_asyncio.fixture(loop_scope="session")
async def half_cold(own_stack: Stack) -> Engine:
    """Ten documents on both sides, five cold ones, and a worker that only commits."""
    await own_stack.start(own_stack.redis, own_stack.mongo)
    own_stack.worker = own_stack.only_committing()
    await own_stack.worker.start()
    engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[0])
    for n in range(15):
        await own_stack.set(str(n), {"n": n})
    await own_stack.drained()
    for n in range(5):
        await evict(engine, str(n))
    return engine


async def evict(engine: Engine, document_id: str) -> None:
    """Take a key away without a delete."""
    await uncaptured(engine, document_id, None)


async def test_they_are_deleted_in_mongodb_over_the_sync_stream(own_stack: Stack, half_cold: Engine) -> None:
    await own_stack.todos.insert_one({"id": "legacy"})
    _, [kept], _ = await audit(own_stack, "--repair", "--mapping", "todos", **PATIENT)
    assert (kept["cold"], kept["deleted"]) == (6, 0)
    _, [only_looking], _ = await audit(own_stack, "--mapping", "todos", **DELETE)
    assert (only_looking["cold"], only_looking["deleted"]) == (6, 0)
    code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos", **DELETE)
    assert (code, report["cold"], report["deleted"], report["warnings"]) == (0, 6, 5, [])
    left = await own_stack.todos.distinct("id")
    assert sorted(left) == sorted(["legacy", *(str(n) for n in range(5, 15))])
    buried = own_stack.mongo_client.test.sync_tombstones.find({"mapping": "todos"})
    assert sorted([tombstone["_id"] async for tombstone in buried]) == [f"todos:{n}" for n in range(5)]


@pytest.mark.parametrize(("asked", "left"), [({}, 15), (DELETE, 10)], ids=["by default", "deleting"])
async def test_sweeps_keep_them_unless_asked_to_delete(
    asked: dict[str, str], left: int, own_stack: Stack, half_cold: Engine
) -> None:
    reconciler = own_stack.only_reconciling().armed(**asked)
    await reconciler.start()
    try:
        report = await eventually(lambda: own_stack.mongo_client.test.sync_audits.find_one({"mapping": "todos"}))
    finally:
        await reconciler.stop()
    assert (report["because"], report["cold"], report["deleted"]) == ("start", 5, 15 - left)
    await own_stack.drained()
    assert await own_stack.todos.count_documents({}) == left


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_not_where_redis_may_evict(own_stack: Stack, half_cold: Engine, policy: str) -> None:
    await half_cold.redis.config_set("maxmemory-policy", policy)
    assert await kept(own_stack) == (
        f"cold documents were not deleted: Redis's maxmemory-policy is {policy}, so that it may have evicted them; "
        "it must be noeviction"
    )


async def test_not_where_redis_has_forgotten_something(own_stack: Stack, half_cold: Engine) -> None:
    await own_stack.worker.kill()  # it would give back what was forgotten
    checked: Any = await half_cold.redis.getdel(half_cold.names.checked)
    assert "Redis may have forgotten what it held" in await kept(own_stack)
    await half_cold.redis.set(half_cold.names.checked, checked)
    acked: Any = await half_cold.redis.get(half_cold.names.acked)
    known = Acked.parse(acked)
    await half_cold.redis.set(half_cold.names.acked, str(replace(known, version=known.version + 1)))
    assert "they don't belong together" in await kept(own_stack)


async def test_not_where_most_are_cold(own_stack: Stack, half_cold: Engine) -> None:
    for n in range(5, 10):
        await evict(half_cold, str(n))
    assert "10 documents are cold and 5 are not: that looks like a loss" in await kept(own_stack)


async def kept(stack: Stack) -> str:
    """Audit with the option on; returns why nothing was deleted."""
    code, [report], _ = await audit(stack, "--repair", "--mapping", "todos", **DELETE)
    assert (code, report["deleted"]) == (0, 0)
    assert await stack.todos.count_documents({}) == 15
    [warning] = report["warnings"]
    return str(warning)


async def test_what_is_read_through_meanwhile_is_kept(own_stack: Stack, half_cold: Engine) -> None:
    cold = await own_stack.todos.find_one({"id": "0"})
    ticket = await half_cold.ticket("0")
    assert ticket
    assert await half_cold.fill("0", b'{"n":0}', version=cold["_sync"]["v"], ticket=ticket)
    assert await delete_absent(half_cold, [b"todos:0", b"todos:1"]) == 1
    await own_stack.drained()
    assert await own_stack.stored("0") == {"id": "0", "n": 0}
    assert await own_stack.get("0") == {"n": 0}
    assert await own_stack.stored("1") is None


@pytest.mark.parametrize("lost", ["flushed", "tail", "all"])
async def test_what_redis_has_lost_is_given_back_and_nothing_is_deleted(own_stack: Stack, lost: str) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    worker = own_stack.another_worker("deleting", **DELETE)
    await worker.start()
    try:
        for n in range(50):
            await own_stack.set(str(n), {"n": n})
        await own_stack.drained()
        shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
        for n in range(50, 60):
            await own_stack.set(str(n), {"n": n})
        await own_stack.drained()
        expected = await own_stack.todos.find({}, {"_sync": 0}).sort("id", 1).to_list()
        sweeps = await own_stack.mongo_client.test.sync_audits.count_documents({"mapping": "todos"})
        if lost == "flushed":
            await own_stack.redis_client.flushall()
        else:
            await own_stack.redis.kill()
            shutil.rmtree(own_stack.folder / "redis")
            if lost == "tail":
                shutil.copytree(own_stack.folder / "snapshot", own_stack.folder / "redis")
            else:
                (own_stack.folder / "redis").mkdir()
            await own_stack.redis.start()

        async def given_back() -> bool:
            keys = [key async for key in own_stack.redis_client.scan_iter("todos:*", count=1000)]
            return len(keys) == 60

        await eventually(given_back, within=20)

        async def swept() -> bool:
            return bool(await own_stack.mongo_client.test.sync_audits.count_documents({"mapping": "todos"}) > sweeps)

        await eventually(swept, within=20)
        assert await own_stack.todos.find({}, {"_sync": 0}).sort("id", 1).to_list() == expected
    finally:
        await worker.kill()
