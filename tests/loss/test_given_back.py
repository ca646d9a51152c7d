"""Promises 1 to 4 for what Redis is given back after it forgot it, and for what reaches MongoDB only then."""

import shutil
from itertools import count

import pytest
from bson import Int64

from gears.contract.changes import Upsert
from gears.contract.redis_names import Names
from gears.contract.write_tokens import EntryId, Token
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Changes
from tests.loss.test_rewind import in_mongodb, in_redis, lose_everything_since, put, recovered, standing
from tests.support.engines import KindStack
from tests.support.stack import Stack, encoded, eventually, logged, newest_version

_NUMBERS = count(1)
"""Versions of batches long ago."""


async def arrives_late(stack: Stack, document_id: str, n: int, version: int) -> None:
    """As the commit of a write that Redis has forgotten meanwhile does, if MongoDB was slow."""
    mapping = stack.settings.mappings[1]
    late = Upsert(document_id, version, encoded(mapping, document_id, {"n": n}, version))
    client = open_client(stack.mongo_uri, timeout=5)
    try:
        await Store(client, mapping).writer.commit(Changes.of([late]), logged(next(_NUMBERS)))
    finally:
        client.close()
    await stack.redis_client.set(Names("notes").sweep, "asked for by a test")


async def test_what_was_under_way_when_redis_forgot_it_replaces_nothing_that_was_given_back(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "older", 0)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    await put(own_stack, "lost", 1)
    late = await newest_version(own_stack) + 1
    await lose_everything_since(own_stack, "snapshot")
    await recovered(own_stack)
    await arrives_late(own_stack, "lost", 2, late)
    await arrives_late(own_stack, "older", 2, late)
    expected = {"lost": {"id": "lost", "n": 1}, "older": {"id": "older", "n": 2}}

    async def settled() -> bool:
        return await in_redis(own_stack) == expected

    await eventually(settled, within=10)
    await own_stack.drained("notes")
    assert await in_mongodb(own_stack) == expected
    await own_stack.set("lost", {"n": 3}, prefix="notes")
    await own_stack.drained("notes")
    assert await own_stack.stored("lost", "notes") == {"id": "lost", "n": 3}


async def late_after_a_restart(stack: Stack) -> None:
    """Redis was restarted; what had been under way, a newer state of `a`, arrives afterwards and is given to Redis."""
    await put(stack, "a", 1)
    late = await newest_version(stack) + 1
    await stack.redis.kill()
    await stack.redis.start()
    await recovered(stack)
    await put(stack, "b", 1)
    await arrives_late(stack, "a", 2, late)

    async def given() -> bool:
        document = await stack.get("a", "notes")
        return document is not None and bool(document["n"] == 2)

    await eventually(given, within=10)
    await stack.drained("notes")
    assert await stack.stored("a", "notes") == {"id": "a", "n": 2}


async def test_what_was_under_way_when_redis_was_restarted_is_newer_than_what_redis_holds(own_stack: Stack) -> None:
    """Nobody's loss was seen, since it had not been committed; MongoDB doesn't go back all the same."""
    await own_stack.start()
    await late_after_a_restart(own_stack)
    await put(own_stack, "a", 3)
    assert await own_stack.stored("a", "notes") == {"id": "a", "n": 3}


async def test_a_deleted_document_that_arrived_late_is_not_given_back(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "deleted", 1)
    late = await newest_version(own_stack)
    assert (await own_stack.client.delete("/notes/deleted")).status_code == 204
    await put(own_stack, "kept", 1)
    await own_stack.worker.stop()
    await own_stack.mongo_client.test.notes.insert_one({"id": "deleted", "n": 1, "_sync": {"v": Int64(late)}})
    await own_stack.redis_client.flushall()
    await own_stack.worker.start(wait=False)
    await recovered(own_stack)
    assert set(await in_redis(own_stack)) == {"kept"}
    assert (await own_stack.client.get("/notes/deleted")).status_code == 404


async def test_a_document_whose_id_somebody_made_an_array_keeps_nothing_from_being_given_back(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 1)
    await put(own_stack, "b", 1)
    await own_stack.mongo_client.test.notes.update_one({"id": "a"}, {"$set": {"id": ["x", "y"]}})
    await own_stack.redis_client.flushall()
    await eventually(lambda: own_stack.get("b", "notes"), within=20)
    await recovered(own_stack)
    assert set(await in_redis(own_stack)) == {"b"}
    await put(own_stack, "b", 2)


async def test_what_is_written_again_while_nobody_listens_is_kept_though_its_delete_was_given_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Without Gears, where only a sweep finds it: the delete isn't of what Redis has forgotten since."""
    stack = KindStack(tmp_path_factory.mktemp("again"), "redis-8.2-function", WT_LEASE_TTL="1.5")
    try:
        await stack.start()
        await put(stack, "kept", 1)
        await put(stack, "deleted", 1)
        assert (await stack.client.delete("/notes/deleted")).status_code == 204
        await stack.redis_client.flushall()
        await eventually(lambda: stack.get("kept", "notes"), within=20)
        await recovered(stack)
        await stack.worker.stop()
        await stack.set("deleted", {"n": 2}, prefix="notes")
        await stack.worker.start()

        async def settled() -> bool:
            return bool(await stack.stored("deleted", "notes"))

        await eventually(settled, within=20)
        await stack.drained("notes")  # the id is given to Redis once MongoDB has it
        assert await stack.get("deleted", "notes") == {"id": "deleted", "n": 2}
    finally:
        await stack.close()


async def test_a_rewind_that_redis_forgets_leaves_nothing_in_mongodb_above_what_comes(own_stack: Stack) -> None:
    """The first one's line lies far ahead, as the ids that Redis had then; the second one knows nothing of these."""
    await own_stack.start()
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    await own_stack.redis_client.delete("sync:{notes}:acked")
    await own_stack.worker.start(wait=False, FAILPOINTS="kill given back")
    await own_stack.worker.ends()
    await own_stack.redis_client.flushall()
    await own_stack.worker.start(wait=False)
    await eventually(lambda: own_stack.get("a", "notes"), within=20)
    await recovered(own_stack)
    await put(own_stack, "a", 2)
    assert await own_stack.stored("a", "notes") == {"id": "a", "n": 2}


async def test_what_arrived_late_is_not_put_before_what_is_written_while_nobody_listens(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stack = KindStack(tmp_path_factory.mktemp("late"), "redis-8.2-function", WT_LEASE_TTL="1.5")
    try:
        await stack.start()
        await late_after_a_restart(stack)
        await recovered(stack)
        await stack.worker.stop()
        await stack.set("a", {"n": 3}, prefix="notes")
        await stack.worker.start()

        async def same() -> bool:
            one, other = await stack.get("a", "notes"), await stack.stored("a", "notes")
            return one is not None and other is not None and one["n"] == other["n"]

        await eventually(same, within=20)
        assert (await stack.get("a", "notes"))["n"] == 3
    finally:
        await stack.close()


async def test_a_write_that_was_captured_before_a_rewind_and_refused_after_it_is_not_called_committed(
    own_stack: Stack,
) -> None:
    """What is given back has a higher version than the write, which says nothing of it."""
    await own_stack.start()
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    answer = await own_stack.client.put("/notes/a", json={"n": 2}, headers={"Prefer": "respond-async"})
    await own_stack.set("a", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start(FAILPOINTS="kill given back", wait=False)
    await own_stack.worker.ends()
    await own_stack.worker.start()
    await recovered(own_stack)
    assert await standing(own_stack, answer.headers["Sync-Token"]) == "refused"
    assert (await in_mongodb(own_stack))["a"]["n"] == 1
    assert (await in_redis(own_stack))["a"]["n"] == 1


async def test_a_write_that_was_captured_before_a_rewind_and_committed_after_it_is_not_called_refused(
    own_stack: Stack,
) -> None:
    """A worker committed it and stopped; by then the key had a state that was refused."""
    await own_stack.start()
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    answer = await own_stack.client.put("/notes/a", json={"n": 2}, headers={"Prefer": "respond-async"})
    await own_stack.worker.start(FAILPOINTS="kill acknowledging", wait=False)
    await own_stack.worker.ends()
    assert (await in_mongodb(own_stack))["a"]["n"] == 2
    await own_stack.set("a", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start()
    await recovered(own_stack)
    assert await standing(own_stack, answer.headers["Sync-Token"]) == "committed"
    assert (await in_redis(own_stack))["a"]["n"] == 2


async def test_what_arrives_while_the_loss_is_looked_for_is_newer_than_what_redis_holds(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    late = await newest_version(own_stack) + 1
    await own_stack.worker.stop()
    await own_stack.redis.kill()
    await own_stack.redis.start()
    await own_stack.worker.start(wait=False, FAILPOINTS="freeze life learnt", MAPPINGS="notes=test.notes:id")
    await own_stack.worker.reaches_failpoint()
    await arrives_late(own_stack, "a", 1, late)
    own_stack.worker.thaw()

    async def given() -> bool:
        return bool((await in_redis(own_stack))["a"]["n"] == 1)

    await eventually(given)
    assert (await in_mongodb(own_stack))["a"]["n"] == 1


@pytest.mark.parametrize("stopped", ["states read", "tombstones written"])
@pytest.mark.parametrize("before", ["something", "nothing"])
async def test_what_was_under_way_is_older_than_what_comes_though_its_ids_were_further_ahead(
    before: str, stopped: str, own_stack: Stack
) -> None:
    """Of all that Redis forgot nothing was committed, so that nobody saw how far its ids were."""
    await own_stack.start()
    if before == "something":
        await put(own_stack, "a", 0)
    await own_stack.worker.stop()
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    answer = await own_stack.client.put("/notes/a", json={"n": 1}, headers={"Prefer": "respond-async"})
    assert Token.parse(answer.headers["Sync-Token"]).id.ms >= 2**42
    await own_stack.worker.start(wait=False, FAILPOINTS=f"freeze {stopped}", WT_LEASE_TTL="30")
    await own_stack.worker.reaches_failpoint()
    await lose_everything_since(own_stack, None)
    another = own_stack.another_worker("another")
    try:
        await another.start()
        await recovered(own_stack)
        await put(own_stack, "a", 2)
        own_stack.worker.thaw()

        async def noticed() -> bool:
            return b"committing stopped" in own_stack.worker.log.read_bytes()

        await eventually(noticed)
        assert (await in_mongodb(own_stack))["a"]["n"] == 2
    finally:
        await another.stop()
