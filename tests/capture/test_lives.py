"""Lives: what Redis forgets in whatever way is noticed, and what it must not lose to time or to other databases."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gears.contract.redis_names import Names
from service.embedded import server_commands as servers
from tests.loss.test_rewind import in_mongodb, in_redis, put, recovered, standing
from tests.support.engines import ALL_KINDS, KINDS, KindStack
from tests.support.stack import Process, Stack, eventually, free_port
from worker.lead.watch_mongo import LOOK_EVERY

FUNCTIONS = [name for name, kind in KINDS.items() if kind.engine == "function"]
NAMES = Names("notes")


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ALL_KINDS)
async def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KindStack]:
    """A whole system on this kind of server."""
    stack = KindStack(tmp_path_factory.mktemp("lives"), request.param, WT_LEASE_TTL="1.5", WT_MONGO_TIMEOUT="2")
    try:
        await stack.start_redis()
        await stack.start(stack.mongo, stack.worker, stack.api)
        yield stack
    finally:
        await stack.close()


@asynccontextmanager
async def replica(stack: KindStack) -> AsyncIterator[Redis]:
    """Another server, which has all that the stack's Redis has."""
    port = free_port()
    folder = stack.folder / "replica"
    (folder / "redis").mkdir(parents=True)
    setup = replace(stack.setup, redis_port=port, data=folder)
    client = Redis(port=port, protocol=2)

    async def in_step() -> bool:
        return bool(await client.ping())

    process = Process(stack.kind.child(servers.redis(setup)), folder, {}, ready=in_step)
    await process.start()
    try:
        await client.replicaof("127.0.0.1", str(stack.setup.redis_port))

        async def linked() -> bool:
            info: Any = await client.info("replication")
            return bool(info["master_link_status"] == "up")

        await eventually(linked)
        yield client
    finally:
        await client.aclose()
        await process.kill()


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("meanwhile", ["nothing", "writes"])
async def test_nothing_acknowledged_is_lost_by_a_failover_and_back_to_the_same_process(
    kind: str, meanwhile: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The replica lagged; the process that is promoted again still knows what it captured."""
    stack = KindStack(tmp_path_factory.mktemp("back"), kind, WT_LEASE_TTL="1.5")
    try:
        await stack.start()
        await put(stack, "a", 1)
        await put(stack, "b", 1)
        async with replica(stack) as other:
            await stack.redis_client.execute_command("WAIT", 1, 5000)
            await other.replicaof("NO", "ONE")  # it hears no more
            tokens = [await put(stack, "a", 2), await put(stack, "c", 1)]
            assert (await stack.client.delete("/notes/b")).status_code == 204
            if meanwhile == "writes":
                await other.execute_command("JSON.SET", "notes:d", "$", '{"id":"d","n":1}')
            port = other.connection_pool.connection_kwargs["port"]
            await stack.redis_client.replicaof("127.0.0.1", str(port))

            async def synced() -> bool:
                info: Any = await stack.redis_client.info("replication")
                return bool(info["role"] == "slave" and info["master_link_status"] == "up")

            await eventually(synced, within=30)
            await stack.redis_client.replicaof("NO", "ONE")
        await recovered(stack)
        expected = {"a": {"id": "a", "n": 2}, "c": {"id": "c", "n": 1}}
        if meanwhile == "writes":
            expected["d"] = {"id": "d", "n": 1}
            await eventually(lambda: stack.stored("d", "notes"), within=20)
        assert await in_mongodb(stack) == expected
        assert await in_redis(stack) == expected
        assert [await standing(stack, token) for token in tokens] == ["committed"] * 2
        await put(stack, "a", 3)
        assert (await in_mongodb(stack))["a"]["n"] == 3
    finally:
        await stack.close()


async def test_writes_in_another_database_are_left_alone(system: KindStack, new_id: str) -> None:
    other = Redis(port=system.setup.redis_port, db=3, protocol=2)
    try:
        await other.execute_command("JSON.SET", f"notes:{new_id}", "$", '{"n":1}')
        await other.delete(f"notes:{new_id}")
        await other.execute_command("JSON.SET", f"notes:{new_id}", "$", '{"n":2}')
        assert await other.keys("sync:*") == []
        await put(system, new_id, 3)
        assert await other.keys("sync:*") == []
        assert (await in_mongodb(system))[new_id]["n"] == 3
    finally:
        await other.flushdb()
        await other.aclose()


@pytest.mark.parametrize("write", ["by a plain client", "over HTTP", "with a time to live given before"])
async def test_what_expires_before_it_is_committed_reaches_mongodb(system: KindStack, new_id: str, write: str) -> None:
    redis, key = system.redis_client, f"notes:{new_id}"
    if write == "with a time to live given before":
        await put(system, new_id, 0)
        await redis.expire(key, 600)
    letters = await system.mongo_client.test.sync_dead_letters.count_documents({})
    system.mongo.freeze()
    try:
        if write == "over HTTP":
            headers = {"Prefer": "respond-async"}
            assert (await system.client.put(f"/notes/{new_id}", json={"n": 1}, headers=headers)).status_code == 202
        else:
            async with redis.pipeline(transaction=True) as pipeline:  # in which RedisGears 1.x holds nobody
                pipeline.execute_command("JSON.SET", key, "$", json.dumps({"id": new_id, "n": 1}))
                await pipeline.execute()
        await captured(system, key)
        await redis.pexpire(key, 400)  # the listener of the engine `function` takes a moment to hear of that
        await eventually(lambda: _absent(redis, key))
    finally:
        system.mongo.thaw()

    async def committed() -> bool:
        return await system.stored(new_id, "notes") == {"id": new_id, "n": 1}

    await eventually(committed, within=20)
    assert (await system.client.get(f"/notes/{new_id}")).json() == {"id": new_id, "n": 1}
    assert await system.mongo_client.test.sync_dead_letters.count_documents({}) == letters


async def captured(system: KindStack, key: str) -> None:
    async def there() -> bool:
        found: Any = await system.redis_client.xrange(NAMES.stream)
        return any(fields[b"k"] == key.encode() for _, fields in found)

    await eventually(there)


async def _absent(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


@pytest.mark.parametrize("decided", [True, False], ids=["mended at once", "waits for a decision"])
async def test_a_backup_that_was_put_back_is_noticed_and_mended(own_stack: Stack, decided: bool) -> None:
    own_stack.worker = own_stack.only_committing().armed(WT_REWIND="restore" if decided else "report")
    await own_stack.start()
    for document_id in ("kept", "changed"):
        await put(own_stack, document_id, 0)
    database = own_stack.mongo_client.test
    names = ("notes", "sync_log", "sync_tombstones")
    backup = {name: await database[name].find().to_list(None) for name in names}
    await put(own_stack, "changed", 1)
    await put(own_stack, "new", 1)
    own_stack.worker.freeze()
    for name, documents in backup.items():
        await database[name].delete_many({})
        if documents:
            await database[name].insert_many(documents)
    own_stack.worker.thaw()

    async def said() -> str:
        checks = (await own_stack.client.get("/readyz")).json().get("checks", {})
        reason = str(checks.get("worker:notes", ""))
        return reason if "put back" in reason else ""

    expected = {"kept": 0, "changed": 1, "new": 1}
    if not decided:
        reason = await eventually(said, within=20)
        assert "SET 'sync:{notes}:rewind' restore" in reason
        assert (await own_stack.client.get("/readyz")).status_code == 503
        assert {i: d["n"] for i, d in (await in_mongodb(own_stack)).items()} == {"kept": 0, "changed": 0}
        await own_stack.redis_client.set(NAMES.rewind, "restore")

    async def mended() -> bool:
        return {i: d["n"] for i, d in (await in_mongodb(own_stack)).items()} == expected

    await eventually(mended, within=20)

    async def logged() -> bool:
        return "MongoDB was put back" in own_stack.worker.log.read_text()

    await eventually(logged)
    await recovered(own_stack)
    await put(own_stack, "changed", 2)
    assert (await in_mongodb(own_stack))["changed"]["n"] == 2
    assert {i: d["n"] for i, d in (await in_redis(own_stack)).items()} == expected | {"changed": 2}


async def test_a_backup_that_was_put_back_is_noticed_though_more_was_committed_since(own_stack: Stack) -> None:
    own_stack.worker = own_stack.only_committing()
    await own_stack.start()
    await put(own_stack, "kept", 0)
    database = own_stack.mongo_client.test
    backup = {name: await database[name].find().to_list(None) for name in ("notes", "sync_log")}
    await put(own_stack, "lost", 1)
    await anyio.sleep(2 * LOOK_EVERY)  # so that the committer has looked: backups are older than that
    for name, documents in backup.items():
        await database[name].delete_many({"_id": {"$nin": [document["_id"] for document in documents]}})
    await put(own_stack, "more", 1)

    async def mended() -> bool:
        return {i: d["n"] for i, d in (await in_mongodb(own_stack)).items()} == {"kept": 0, "lost": 1, "more": 1}

    await eventually(mended, within=20)
    assert "MongoDB was put back" in own_stack.worker.log.read_text()


async def test_redis_that_is_empty_is_served_at_once_and_warmed(own_stack: Stack) -> None:
    await own_stack.start()
    documents = [{"id": str(n), "n": n} for n in range(500)]
    await own_stack.mongo_client.test.notes.insert_many([dict(document) for document in documents])
    await put(own_stack, "a", 1)
    await own_stack.redis_client.flushall()

    async def serves() -> bool:
        return (await own_stack.client.get("/notes/7")).status_code == 200

    await eventually(serves)

    async def warm() -> bool:
        return len(await in_redis(own_stack)) == 501

    await eventually(warm, within=30)
    await recovered(own_stack)
    with anyio.fail_after(20):
        await put(own_stack, "a", 2)
