"""Promises 4, 5 and 6, and the committer's bad times: workers, MongoDB and Redis stopped, frozen, killed."""

from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.contract.write_tokens import ZERO, EntryId
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome
from gears.in_redis.client import AWAY, connect, own_wire
from gears.progress.backlog import last_entry
from tests.support.stack import Process, Stack, encoded, eventually, logged
from worker.commit.read.read_batch import Reader


async def both_sides(stack: Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    """All documents in Redis and in MongoDB, by id."""
    keys = [key async for key in stack.redis_client.scan_iter("todos:*", count=1000)]
    values: Any = await stack.redis_client.json().mget(keys, "$") if keys else []
    in_redis = {
        key.removeprefix(b"todos:").decode(): value[0] | {"id": key.removeprefix(b"todos:").decode()}
        for key, value in zip(keys, values, strict=True)
    }
    in_mongo = {
        found["id"]: {k: v for k, v in found.items() if k not in ("_id", "_sync")} async for found in stack.todos.find()
    }
    return in_redis, in_mongo


async def write_until(stack: Stack, scope: anyio.CancelScope, written: list[int]) -> None:
    """A plain client that sets, changes and deletes keys until cancelled."""
    n = 0
    with scope:
        while True:
            n += 1
            try:
                await stack.set(str(n % 50), {"n": n})
                if n % 7 == 0:
                    await stack.redis_client.delete(f"todos:{n * 3 % 50}")
            except AWAY:
                continue
            written[0] = n
            await anyio.lowlevel.checkpoint()


async def test_mongodb_never_goes_back_to_an_older_state(stack: Stack, new_id: str) -> None:
    mapping = Mapping(f"other{new_id}", "test", f"other_{new_id}")
    client = open_client(stack.mongo_uri, timeout=5)
    store = Store(client, mapping)
    await store.set_up.prepare()

    def upsert(version: int) -> Upsert:
        return Upsert("a", version, encoded(mapping, "a", {"v": version}, version))

    steps: list[tuple[Change, int | None]] = [
        (upsert(5), 5),
        (upsert(4), 5),
        (upsert(5), 5),
        (Remove("a", 4), 5),
        (upsert(7), 7),
        (Remove("a", 8), None),
        (Remove("a", 8), None),
        (upsert(7), None),
        (upsert(9), 9),
    ]
    for number, (change, expected) in enumerate(steps):
        assert await store.writer.commit(Changes.of([change]), logged(number)) == Outcome()
        found = await store.find_alive("a")
        assert (found and (found.fields or {})["v"]) == expected
    client.close()


async def test_redis_never_waits_for_mongodb(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 0})
    await own_stack.drained()
    own_stack.mongo.freeze()
    slowest = 0.0
    for n in range(300):
        started = monotonic()
        await own_stack.set("a", {"n": n})
        await own_stack.redis_client.ping()
        slowest = max(slowest, monotonic() - started)
    assert slowest < 0.5, "a write or a ping waited for MongoDB"
    assert await own_stack.redis_client.xlen("sync:{todos}") > 0
    own_stack.mongo.thaw()
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 299}


async def test_a_worker_that_was_away_catches_up(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    for n in range(2000):
        await own_stack.set(str(n % 100), {"n": n})
    await own_stack.worker.start()
    await own_stack.drained()
    in_redis, in_mongo = await both_sides(own_stack)
    assert in_mongo == in_redis
    assert len(in_mongo) == 100


async def test_batches_read_ahead_while_clients_write_and_delete(own_stack: Stack) -> None:
    """A key is in the batch that MongoDB writes, in the one read meanwhile, and changes further."""
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    for n in range(400):
        key = str(n * 7 % 10)
        await (own_stack.redis_client.delete(f"todos:{key}") if n % 3 == 0 else own_stack.set(key, {"n": n}))
    await own_stack.set("refused", {"n": 2**63})
    written, scope = [0], anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write_until, own_stack, scope, written)
        await own_stack.worker.start(WT_BATCH_SIZE="3")
        await eventually(lambda: _reached(written, 500), within=20)
        scope.cancel()
    await own_stack.drained(within=60)
    in_redis, in_mongo = await both_sides(own_stack)
    assert in_mongo == in_redis
    assert in_mongo
    assert await own_stack.mongo_client.test.sync_dead_letters.count_documents({"key": "todos:refused"}) == 1


@pytest.mark.parametrize("victim", ["worker", "mongo", "redis"])
async def test_both_sides_agree_after_a_kill_under_load(victim: str, own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    process: Process = getattr(own_stack, victim)
    for _ in range(3):
        written, scope = [0], anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_until, own_stack, scope, written)
            await eventually(lambda enough=written: _reached(enough, 300), within=20)  # type: ignore[misc]
            await process.kill()
            await process.start(wait=victim != "worker")
            scope.cancel()
    await own_stack.drained(within=30)
    in_redis, in_mongo = await both_sides(own_stack)
    assert in_mongo == in_redis
    assert in_mongo


async def _says_retrying(stack: Stack) -> bool:
    return await stack.redis_client.hget("sync:{todos}:worker", "state") == b"retrying"


async def _reached(written: list[int], enough: int) -> bool:
    return written[0] >= enough


async def test_mongodb_away_at_start_is_waited_for_and_said(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis)
    await own_stack.worker.start(wait=False)
    await eventually(lambda: _says_retrying(own_stack))
    await own_stack.set("a", {"n": 1})
    assert await own_stack.redis_client.xlen("sync:{todos}") == 1, "not captured while MongoDB is away"
    await own_stack.mongo.start()
    await own_stack.worker.wait_ready()
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}
    said = own_stack.worker.log.read_text().count("commits are held up")
    assert said == len(own_stack.settings.mappings), "one line a mapping, not a flood"


async def test_redis_away_at_start_is_waited_for(own_stack: Stack) -> None:
    await own_stack.start(own_stack.mongo)
    await own_stack.worker.start(wait=False)
    await own_stack.redis.start()
    await own_stack.worker.wait_ready()
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}


async def test_a_standby_takes_over_and_the_frozen_one_does_no_harm(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    standby = own_stack.another_worker("standby")
    await standby.start()
    try:
        first_owner = await own_stack.redis_client.hget("sync:{todos}:worker", "owner")
        own_stack.worker.freeze()
        await own_stack.set("a", {"n": 1})
        await own_stack.drained()
        assert await own_stack.redis_client.hget("sync:{todos}:worker", "owner") != first_owner
        own_stack.worker.thaw()
        for n in range(500):
            await own_stack.set(str(n), {"n": n})
        await own_stack.drained()
        in_redis, in_mongo = await both_sides(own_stack)
        assert in_mongo == in_redis
        await standby.stop()
        await own_stack.set("b", {"n": 2})
        await own_stack.drained()
        assert await own_stack.stored("b") == {"id": "b", "n": 2}
    finally:
        if standby.running:
            await standby.kill()


async def test_a_state_has_the_version_of_the_newest_write_that_it_may_hold(own_stack: Stack) -> None:
    """Or a write would be called refused though it is in MongoDB: committed with an earlier entry of its key."""
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    for n, key in enumerate(["a", "b", "a", "c"]):
        await own_stack.set(key, {"n": n})
    async with connect(own_stack.redis_url, timeout=5) as redis, own_wire(redis) as wire:
        batch = await Reader(wire, Names("todos")).read(ZERO, 1, wait=True, known={}, due=(), beside=())
    assert batch.states == {b"todos:a": b'{"n":2}'}
    assert batch.newest is not None
    assert batch.newest.id == await last_entry(own_stack.redis_client, Names("todos"))


async def test_a_lease_that_a_clock_set_back_made_last_is_cut_short(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await own_stack.redis_client.set("sync:{todos}:lease", "a committer of before", px=600_000)
    await own_stack.redis_client.set("sync:{notes}:lease", "a committer of before")
    await own_stack.worker.start()


async def test_a_dropped_unique_index_comes_back_and_the_newest_state_stays(own_stack: Stack) -> None:
    """As if two committers had stored the same document while nothing kept them from it."""
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    stored = await own_stack.todos.find_one({"id": "a"})
    await own_stack.todos.drop_index("id_1")
    del stored["_id"]
    await own_stack.todos.insert_one(stored | {"n": 0, "_sync": {"v": stored["_sync"]["v"] - 1}})

    async def unique() -> bool:
        return "id_1" in await own_stack.todos.index_information()

    await eventually(unique)
    assert [found["n"] async for found in own_stack.todos.find({"id": "a"})] == [1]


async def test_a_stopped_worker_hands_over_at_once_and_ends_within_seconds(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    assert await own_stack.worker.stop() < 5
    assert await own_stack.redis_client.get("sync:{todos}:lease") is None
    assert await own_stack.redis_client.exists("sync:{todos}:worker") == 0


async def test_a_frozen_mongodb_does_not_keep_a_worker_from_stopping(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    own_stack.mongo.freeze()
    await own_stack.set("a", {})
    await eventually(lambda: _says_retrying(own_stack))
    assert await own_stack.worker.stop() < 5


async def test_duplicate_ids_are_named_and_mended_without_a_restart(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await own_stack.todos.insert_many([{"id": "twice"}, {"id": "twice"}, {"id": "once"}])
    await own_stack.worker.start(wait=False)

    async def reason() -> bytes:
        state: Any = await own_stack.redis_client.hgetall("sync:{todos}:worker")
        return bytes(state[b"reason"]) if state.get(b"state") == b"blocked" else b""

    assert b"'twice' (2 documents)" in await eventually(reason)
    await own_stack.set("a", {}, prefix="notes")
    await own_stack.drained("notes")
    await own_stack.todos.delete_one({"id": "twice"})
    await own_stack.worker.wait_ready()


async def test_a_removed_recipe_is_installed_again(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.redis_client.execute_command("TFUNCTION", "DELETE", "writethrough_todos")

    async def back() -> bool:
        found = await own_stack.redis_client.execute_command("TFUNCTION", "LIST", "LIBRARY", "writethrough_todos")
        return bool(found)

    await eventually(back)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}


async def test_versions_go_on_above_those_of_before_when_redis_comes_back_empty(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    far = EntryId(2**42, 0)  # as if the clock had been ahead
    await own_stack.redis_client.xadd("sync:{todos}", {"k": "todos:a", "e": "json.set"}, id=str(far))
    await own_stack.set("a", {"n": 0})
    await own_stack.drained()
    before = await own_stack.todos.find_one({"id": "a"}) or {}
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    await own_stack.worker.start()
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    stored = await own_stack.todos.find_one({"id": "a"}) or {}
    assert stored["n"] == 1
    assert stored["_sync"]["v"] > before["_sync"]["v"]


async def test_a_backlog_of_one_hot_key_is_drained_fast(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    for n in range(0, 5000, 500):
        async with own_stack.redis_client.pipeline(transaction=False) as pipeline:
            for m in range(n, n + 500):
                pipeline.execute_command("JSON.SET", "todos:hot", "$", f'{{"n":{m}}}')
            await pipeline.execute()
    await own_stack.worker.start()
    await own_stack.drained(within=5)
    assert await own_stack.stored("hot") == {"id": "hot", "n": 4999}
