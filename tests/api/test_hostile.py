"""What nobody expects: Redis out of memory, huge batches, foreign documents, dropped collections, odd streams."""

import json
import shutil
from time import time
from typing import Any

import pytest
from bson import Binary
from httpx import AsyncClient

from gears.contract.changes import Change, Remove, Upsert
from gears.contract.mapping import Mapping
from gears.engines import open_engine
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Changes, Outcome
from tests.loss.test_rewind import lose_everything_since
from tests.support.stack import Stack, encoded, eventually, logged


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_backlog_is_drained_while_redis_is_out_of_memory(own_stack: Stack, restarted: bool) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker, own_stack.api)
    for document_id in ("a", "b", "c"):
        await own_stack.set(document_id, {"n": 1})
    await own_stack.drained()
    await own_stack.worker.kill()
    await own_stack.set("a", {"n": 2})
    await own_stack.set("refused", [1])
    redis = own_stack.redis_client
    if restarted:
        await own_stack.redis.kill()
        await own_stack.redis.start()
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used // 2)  # the policy is noeviction
    await redis.delete("todos:b")
    await own_stack.worker.start(wait=False)
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 2}
    assert await own_stack.stored("b") is None
    assert await own_stack.get("refused") is None, "not rolled back"
    assert await redis.hget("sync:{todos}:worker", "state") == b"committing"
    assert (await own_stack.client.delete("/todos/c")).status_code == 204
    assert await own_stack.stored("c") is None


async def test_redis_is_given_back_what_it_lost_while_it_is_out_of_memory(own_stack: Stack) -> None:
    await own_stack.start()
    for n in range(2):
        if n:
            shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
        await own_stack.set("a", {"n": n})
        await own_stack.drained()
    await own_stack.worker.stop()
    await lose_everything_since(own_stack, "snapshot")
    await own_stack.redis_client.config_set("maxmemory", 1)  # the policy is noeviction
    await own_stack.redis_client.delete("sync:{todos}:lease")
    await own_stack.worker.start(wait=False)

    async def given_back() -> bool:
        return bool((await own_stack.get("a"))["n"] == 1)

    await eventually(given_back)
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}


async def test_a_batch_of_large_documents_is_committed_in_parts(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    large = json.dumps({"a": [{"k": "v" * 80, "n": n, "x": n * 1.5} for n in range(8000)]})
    for n in range(70):
        await own_stack.redis_client.execute_command("JSON.SET", f"todos:{n}", "$", large)
    await own_stack.set("last", {})
    await own_stack.worker.start(WT_LEASE_TTL="5")
    await own_stack.drained(within=60)
    assert await own_stack.todos.count_documents({}) == 71
    log = own_stack.worker.log.read_text()
    assert "committing stopped" not in log, "the lease was lost meanwhile"


async def test_versions_go_on_when_a_millisecond_holds_more_than_a_million_entries(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    ahead = int(time() * 1000) + 60_000  # as if the clock had been set back: Redis numbers on under this millisecond
    await own_stack.redis_client.xadd("sync:{todos}", {"e": "x"}, id=f"{ahead}-{2**20 - 3}")
    for n in range(10):
        await own_stack.set("a", {"n": n})
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 9}
    await own_stack.redis_client.delete("todos:a")
    await own_stack.drained()
    assert await own_stack.stored("a") is None


async def test_a_mapping_that_cannot_go_on_does_not_stop_the_others(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.redis_client.xadd("sync:{todos}", {"e": "x"}, id=f"{2**50}-1")  # too large for a version

    async def said() -> bool:
        return "committing crashed; trying again" in own_stack.worker.log.read_text()

    await eventually(said)
    await own_stack.set("a", {}, prefix="notes")
    await own_stack.drained("notes")
    assert own_stack.worker.running


async def test_a_roll_back_to_a_document_with_what_json_lacks(stack: Stack, new_id: str) -> None:
    await stack.todos.insert_one({"id": new_id, "b": Binary(b"\xff\xfe")})
    await stack.set(new_id, [1])

    async def rolled_back() -> bool:
        return bool(await stack.get(new_id) == {"id": new_id, "b": {"$binary": {"base64": "//4=", "subType": "00"}}})

    await eventually(rolled_back)
    await stack.drained()
    stored = await stack.stored(new_id)
    assert stored == {"id": new_id, "b": b"\xff\xfe"}


async def test_a_key_too_long_for_a_dead_letter_is_cut(stack: Stack, new_id: str) -> None:
    key = f"todos:{new_id}" + "k" * 9_000_000
    await stack.redis_client.execute_command("JSON.SET", key, "$", "{}")
    await stack.drained()
    assert not await stack.redis_client.exists(key)
    [letter] = await stack.mongo_client.test.sync_dead_letters.find({"key": {"$regex": f"^todos:{new_id}k"}}).to_list()
    assert "9000038 bytes" in letter["key"]


async def test_a_version_of_another_type_is_not_ours(stack: Stack, new_id: str) -> None:
    await stack.todos.insert_one({"id": new_id, "_sync": {"v": 1.9e30}})
    await stack.set(new_id, {"n": 1})
    await stack.drained()
    assert await stack.stored(new_id) == {"id": new_id, "n": 1}


async def test_a_late_write_does_not_bring_back_what_was_deleted_meanwhile(stack: Stack, new_id: str) -> None:
    mapping = Mapping(f"other{new_id}", "test", f"other_{new_id}")
    client = open_client(stack.mongo_uri, timeout=5)
    store = Store(client, mapping)
    await store.set_up.prepare()

    def upsert(document_id: str, version: int) -> Upsert:
        return Upsert(document_id, version, encoded(mapping, document_id, {"v": version}, version))

    steps: list[list[Change]] = [
        [upsert(new_id, 5)],
        [Remove(new_id, 8)],
        [upsert(new_id, 7), upsert("another", 7)],  # by a committer that was frozen until now
    ]
    for number, changes in enumerate(steps):
        assert await store.writer.commit(Changes.of(changes), logged(number)) == Outcome()
    assert await stack.mongo_client.test[mapping.collection].distinct("id") == ["another"]
    await store.writer.commit(Changes.of([upsert(new_id, 9)]), logged(len(steps)))
    assert await store.find_alive(new_id) is not None
    client.close()


async def test_nobody_is_given_what_a_late_write_brought_back(stack: Stack, api: AsyncClient, new_id: str) -> None:
    await api.put(f"/notes/{new_id}", json={"n": 1})
    document = await stack.mongo_client.test.notes.find_one({"id": new_id}) or {}
    await api.delete(f"/notes/{new_id}")
    await stack.mongo_client.test.notes.insert_one(document)
    await stack.redis_client.delete(f"sync:{{notes}}:gone:{new_id}")  # as if that was long ago
    assert (await api.get(f"/notes/{new_id}")).status_code == 404
    refused = await api.put(f"/notes/{new_id}", json={"n": list(range(1_450_000))}, headers={"Prefer": "wait=20"})
    assert refused.status_code == 422
    assert await stack.get(new_id, "notes") is None


async def test_a_dropped_collection_gets_its_index_back_before_a_commit_is_repeated(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    await own_stack.todos.drop()
    own_stack.mongo.freeze()
    await own_stack.set("a", {"n": 2})

    async def retrying() -> bool:
        return await own_stack.redis_client.hget("sync:{todos}:worker", "state") == b"retrying"

    await eventually(retrying)
    own_stack.mongo.thaw()
    await own_stack.drained()
    assert await own_stack.todos.count_documents({"id": "a"}) == 1
    indexes: Any = await own_stack.todos.index_information()
    assert indexes["id_1"]["unique"]


async def test_a_read_through_hides_no_write_that_expired_before_it_was_committed(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker, own_stack.api)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    await own_stack.worker.stop()
    await own_stack.set("a", {"n": 2})
    await own_stack.redis_client.pexpire("todos:a", 1)

    async def expired() -> bool:
        return not await own_stack.redis_client.exists("todos:a")

    await eventually(expired)
    assert (await own_stack.client.get("/todos/a")).status_code == 200
    await own_stack.worker.start()
    await own_stack.drained()
    assert await own_stack.mongo_client.test.sync_dead_letters.count_documents({"key": "todos:a"}) == 0
    assert await own_stack.stored("a") == {"id": "a", "n": 2}
    assert (await own_stack.client.get("/todos/a")).json()["n"] == 2


async def test_the_mark_of_a_delete_does_not_expire_before_that_is_committed(stack: Stack, new_id: str) -> None:
    mark = f"sync:{{todos}}:gone:{new_id}"
    for deleted_at, expires in ((f"{2**42}-0", False), ("1-0", True)):
        await stack.redis_client.set(mark, deleted_at)
        await stack.redis_client.xadd("sync:{todos}", {"k": f"todos:{new_id}", "e": "del"})
        await stack.drained()
        assert (await stack.redis_client.ttl(mark) > 0) is expires


async def test_captures_that_failed_once_do_not_keep_the_recipe_from_being_ready(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[0])

    async def working() -> bool:
        return (await engine.status()).working

    for n in range(2):
        await own_stack.redis_client.delete("sync:{todos}")
        await own_stack.redis_client.set("sync:{todos}", "not a stream")
        await own_stack.set("a", {"n": n})  # not captured
        await own_stack.redis_client.delete("sync:{todos}")
        await eventually(working)
    assert not await engine.install(), "installed again for nothing"
    await own_stack.worker.wait_ready()
    await own_stack.set("a", {"n": 2})
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 2}


async def test_a_document_with_an_array_as_its_id_is_left_alone_and_holds_nobody_up(stack: Stack, new_id: str) -> None:
    if not stack.api.running:
        await stack.api.start()
    notes, path = stack.mongo_client.test.notes, f"/notes/{new_id}"
    foreign = {"_id": 1, "id": [new_id, f"{new_id}-x"], "theirs": True}
    await notes.insert_one(foreign)
    try:
        assert (await stack.client.get(path)).status_code == 404
        assert (await stack.client.delete(path)).status_code == 404
        answer = await stack.client.put(path, json={"n": 1})
        assert answer.status_code == 422
        assert "held by the document with _id 1 in test.notes" in answer.json()["detail"]
        assert (await stack.client.put(f"{path}-y", json={"n": 1})).status_code == 201
        await stack.redis_client.execute_command("JSON.SET", f"notes:{new_id}", "$", "{}")
        await stack.redis_client.delete(f"notes:{new_id}")
        await stack.drained("notes")
        assert await notes.find_one({"_id": 1}) == foreign
    finally:
        await notes.delete_one({"_id": 1})
    assert (await stack.client.put(path, json={"n": 1})).status_code == 201
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 1}
