"""Promises 1, 4 and 7, and what is said of tokens, when Redis forgets something at an unfortunate moment."""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from bson import Int64

from gears.contract.entries import BACKFILL
from gears.contract.redis_names import Names
from gears.contract.write_tokens import EntryId
from gears.engines import open_engine
from tests.loss.test_given_back import arrives_late
from tests.loss.test_rewind import in_mongodb, in_redis, lose_everything_since, put, recovered, standing
from tests.support.engines import KindStack
from tests.support.stack import Stack, eventually, newest_version

ASYNC = {"Prefer": "respond-async"}
NAMES = Names("notes")


@pytest_asyncio.fixture(loop_scope="session")
async def in_twos(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that commits two documents at a time."""
    stack = KindStack(tmp_path_factory.mktemp("twos"), "redis-stack-7.4-gears2", WT_BATCH_SIZE="2", WT_LEASE_TTL="30")
    try:
        yield stack
    finally:
        await stack.close()


async def queue(stack: Stack, document_id: str, **document: Any) -> str:
    answer = await stack.client.put(f"/notes/{document_id}", json=document, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["Sync-Token"]


async def lose(stack: Stack) -> None:
    """Redis comes back as it was at the snapshot; the leases of then keep nobody from working."""
    await lose_everything_since(stack, "snapshot")
    await stack.redis_client.delete(*(f"sync:{{{prefix}}}:lease" for prefix in ("notes", "todos")))


def snapshot(stack: Stack) -> None:
    shutil.copytree(stack.folder / "redis", stack.folder / "snapshot")


async def test_what_was_committed_from_a_backlog_is_not_called_lost_when_redis_forgets_it(in_twos: Stack) -> None:
    """Batches that were waiting at the same time are as new as the same entry."""
    await in_twos.start()
    await put(in_twos, "before", 0)
    snapshot(in_twos)
    await in_twos.worker.stop()
    tokens = {i: await queue(in_twos, i, n=1) for i in "abcd"}
    await in_twos.worker.start()
    await in_twos.drained("notes")
    assert {i: await standing(in_twos, token) for i, token in tokens.items()} == dict.fromkeys("abcd", "committed")
    await lose(in_twos)
    await recovered(in_twos)
    assert set(await in_mongodb(in_twos)) == {"before", *"abcd"}
    assert {i: await standing(in_twos, token) for i, token in tokens.items()} == dict.fromkeys("abcd", "committed")


async def test_no_token_of_a_backlog_is_called_committed_when_only_the_checkpoint_had_come(in_twos: Stack) -> None:
    """As many documents of an earlier batch are as new as those that didn't come."""
    await in_twos.start()
    await put(in_twos, "before", 0)
    snapshot(in_twos)
    await in_twos.worker.stop()
    tokens = {i: await queue(in_twos, i, n=1) for i in "abcd"}
    await in_twos.worker.start(wait=False, FAILPOINTS="kill:2 acknowledging")
    await in_twos.worker.ends()
    await in_twos.mongo_client.test.notes.delete_many({"id": {"$in": ["c", "d"]}})  # as if they had not come
    await lose(in_twos)
    await in_twos.worker.start()
    await recovered(in_twos)
    await put(in_twos, "after", 0)
    expected = dict.fromkeys("ab", "committed") | dict.fromkeys("cd", "unknown")
    assert {i: await standing(in_twos, token) for i, token in tokens.items()} == expected


async def test_what_was_committed_beside_a_refused_document_is_not_called_lost(own_stack: Stack) -> None:
    await own_stack.start()
    await own_stack.mongo_client.test.notes.create_index(
        "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
    )
    await own_stack.client.put("/notes/before", json={"slug": "taken"})
    snapshot(own_stack)
    await own_stack.worker.stop()
    good = await queue(own_stack, "good", n=1)
    await queue(own_stack, "bad", slug="taken")
    await own_stack.worker.start(wait=False, FAILPOINTS="freeze acknowledged")
    await own_stack.worker.reaches_failpoint()
    assert await standing(own_stack, good) == "committed"
    await own_stack.worker.kill()
    await lose(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    assert await standing(own_stack, good) == "committed"


async def test_what_was_committed_is_not_called_lost_though_documents_of_the_next_commit_came(own_stack: Stack) -> None:
    """They came, and its checkpoint didn't: they have replaced some that the last checkpoint counts."""
    await own_stack.start()
    await put(own_stack, "before", 0)
    snapshot(own_stack)
    await own_stack.worker.stop()
    tokens = {i: await queue(own_stack, i, n=1) for i in "ab"}
    await own_stack.worker.start()
    await own_stack.drained("notes")
    await own_stack.worker.stop()
    await queue(own_stack, "a", n=2)
    later = await newest_version(own_stack) + 1
    await own_stack.mongo_client.test.notes.update_one({"id": "a"}, {"$set": {"n": 2, "_sync.v": Int64(later)}})
    await lose(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    assert {i: await standing(own_stack, token) for i, token in tokens.items()} == dict.fromkeys("ab", "committed")


async def test_a_token_is_called_lost_though_nothing_was_committed_since_a_rewind(own_stack: Stack) -> None:
    """After the rewind nobody knows which run of the server the last committed entry is of."""
    await own_stack.start()
    await put(own_stack, "before", 0)
    await own_stack.redis_client.flushall()
    await eventually(lambda: own_stack.get("before", "notes"), within=20)
    await recovered(own_stack)
    await own_stack.worker.stop()
    snapshot(own_stack)
    lost = await queue(own_stack, "lost", n=1)
    await lose(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "after", 0)
    assert set(await in_mongodb(own_stack)) == {"before", "after"}
    assert await standing(own_stack, lost) == "lost"


async def test_a_rewind_undoes_no_write_that_redis_still_has_and_mongodb_has_not(in_twos: Stack) -> None:
    """An older state of the key was committed meanwhile, and forgotten; the stream still holds the newer entry."""
    await in_twos.start()
    await put(in_twos, "k", 0)
    await in_twos.worker.stop()
    await queue(in_twos, "k", n=1)
    await queue(in_twos, "a", n=1)
    await in_twos.worker.start(wait=False, FAILPOINTS="freeze states read; kill:2 acknowledged")
    await in_twos.worker.reaches_failpoint()
    await queue(in_twos, "b", n=1)
    await queue(in_twos, "c", n=1)
    kept = await queue(in_twos, "k", n=2)
    snapshot(in_twos)
    await queue(in_twos, "lost", n=1)
    in_twos.worker.thaw()
    await in_twos.worker.ends()
    await lose(in_twos)
    assert await in_twos.get("k", "notes") == {"id": "k", "n": 2}
    await in_twos.worker.start(wait=False)
    await recovered(in_twos)
    said = await standing(in_twos, kept)
    assert (await in_mongodb(in_twos))["k"]["n"] == 2, f"the write is called {said}"
    assert (await in_redis(in_twos))["k"]["n"] == 2


async def test_a_write_that_is_committed_after_all_is_not_answered_with_a_refusal(own_stack: Stack) -> None:
    """The committer is killed between recording the refusal and rolling Redis back; then the reason is gone."""
    await own_stack.start()
    await own_stack.mongo_client.test.notes.create_index(
        "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
    )
    await own_stack.client.put("/notes/x", json={"slug": "taken"})
    await own_stack.worker.stop()
    await queue(own_stack, "x", slug="taken", n=1)
    answers = []

    async def write() -> None:
        headers = {"Prefer": "wait=40"}
        answers.append(await own_stack.client.put("/notes/y", json={"slug": "taken"}, headers=headers))

    async def captured() -> bool:
        return await own_stack.redis_client.xlen("sync:{notes}") == 2

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await eventually(captured)
        await own_stack.worker.start(wait=False, FAILPOINTS="kill refusals recorded")
        await own_stack.worker.ends()
        await queue(own_stack, "x", slug="other")
        await own_stack.worker.start()
    await own_stack.drained("notes")
    stored, kept = await own_stack.stored("y", "notes"), await own_stack.get("y", "notes")
    assert stored == kept
    assert (answers[0].status_code == 422) == (stored is None), f"{answers[0].status_code}, and MongoDB has {stored}"


async def test_mongodb_does_not_go_back_though_a_write_comes_before_the_loss_is_looked_for(in_twos: Stack) -> None:
    """The checkpoint's entry is still on the stream, the one that MongoDB's states are as new as isn't."""
    await in_twos.start()
    await put(in_twos, "k", 0)
    await in_twos.worker.stop()
    await queue(in_twos, "a", n=1)
    await queue(in_twos, "k", n=1)
    await queue(in_twos, "b", n=1)
    snapshot(in_twos)
    await queue(in_twos, "k", n=2)
    await in_twos.worker.start(wait=False, FAILPOINTS="kill acknowledging")
    await in_twos.worker.ends()
    assert (await in_mongodb(in_twos))["k"]["n"] == 2
    await lose(in_twos)
    await in_twos.set("written", {"n": 1}, prefix="notes")
    await in_twos.worker.start(wait=False)
    await recovered(in_twos)
    assert (await in_mongodb(in_twos))["k"]["n"] == 2
    assert (await in_redis(in_twos))["k"]["n"] == 2


async def test_what_arrives_late_after_a_restart_is_known_as_such_though_nothing_was_committed_since_a_rewind(
    own_stack: Stack,
) -> None:
    """As in `late_after_a_restart`, but Redis had been emptied before."""
    await own_stack.start()
    await put(own_stack, "a", 1)
    await own_stack.redis_client.flushall()
    await eventually(lambda: own_stack.get("a", "notes"), within=20)
    await recovered(own_stack)
    late = await newest_version(own_stack) + 1
    await own_stack.redis.kill()
    await own_stack.redis.start()
    await recovered(own_stack)
    await put(own_stack, "b", 1)
    await arrives_late(own_stack, "a", 2, late)

    async def given() -> bool:
        return bool((await own_stack.get("a", "notes"))["n"] == 2)

    await eventually(given, within=10)
    await own_stack.drained("notes")
    assert await own_stack.stored("a", "notes") == {"id": "a", "n": 2}


async def test_what_was_refused_is_still_called_refused_once_redis_is_emptied(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "kept", 0)
    await own_stack.worker.stop()
    overwritten = await queue(own_stack, "refused", n=1)
    await own_stack.set("refused", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start()
    await own_stack.drained("notes")
    assert await standing(own_stack, overwritten) == "refused"
    await own_stack.redis_client.flushall()
    await eventually(lambda: own_stack.get("kept", "notes"), within=20)
    await recovered(own_stack)
    await put(own_stack, "kept", 1)
    assert set(await in_mongodb(own_stack)) == {"kept"}
    assert await standing(own_stack, overwritten) == "refused"


async def test_no_two_conditional_writes_replace_the_same_state_though_redis_goes_back_to_it(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    tag = (await own_stack.client.get("/notes/a")).headers["ETag"]
    snapshot(own_stack)
    assert (await own_stack.client.put("/notes/a", json={"n": 1}, headers={"If-Match": tag})).status_code == 200
    await own_stack.worker.stop()
    await lose(own_stack)
    answers: list[httpx.Response] = []

    async def answered() -> bool:
        answers.append(await own_stack.client.put("/notes/a", json={"n": 2}, headers={"If-Match": tag}))
        kind = answers[-1].json()["type"]
        return not kind.endswith(("redis-unavailable", "capture-missing"))

    await eventually(answered, within=20)
    assert answers[-1].status_code in (412, 503)
    assert answers[-1].json()["type"].endswith(("precondition-failed", "redis-unchecked"))
    await own_stack.worker.start()
    await recovered(own_stack)
    answer = await own_stack.client.put("/notes/a", json={"n": 2}, headers={"If-Match": tag})
    assert answer.status_code == 412
    assert (await in_mongodb(own_stack))["a"]["n"] == 1


async def test_a_write_that_was_replaced_is_not_kept_when_redis_falls_back_to_it_after_a_flush(
    own_stack: Stack,
) -> None:
    """With nothing acknowledged; the stream is ahead of the clock, so that an id above it makes no write a new one."""
    await own_stack.start()
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    await put(own_stack, "a", 0)
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    await own_stack.worker.start(wait=False, FAILPOINTS="kill life learnt")
    await own_stack.worker.ends()
    await own_stack.set("a", {"n": 1}, prefix="notes")
    snapshot(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "a", 2)
    await own_stack.worker.stop()
    await lose(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    assert (await in_redis(own_stack))["a"]["n"] == (await in_mongodb(own_stack))["a"]["n"] == 2


async def test_what_redis_was_given_back_is_missed_when_redis_falls_back_to_amid_that(own_stack: Stack) -> None:
    await own_stack.start()
    for document_id in ("a", "b"):
        await put(own_stack, document_id, 0)
    snapshot(own_stack)
    await put(own_stack, "a", 1)
    assert (await own_stack.client.delete("/notes/b")).status_code == 204
    await own_stack.worker.stop()
    await lose(own_stack)
    only = "notes=test.notes:id"
    await own_stack.worker.start(wait=False, FAILPOINTS="freeze given back", MAPPINGS=only)
    await own_stack.worker.reaches_failpoint()
    shutil.rmtree(own_stack.folder / "snapshot")
    snapshot(own_stack)
    own_stack.worker.thaw()

    async def given_back() -> bool:
        return set(await in_redis(own_stack)) == {"a"}

    await eventually(given_back)
    await own_stack.drained("notes")
    await own_stack.worker.stop()
    await lose(own_stack)
    await own_stack.worker.start()
    await recovered(own_stack)
    expected = {"a": 1}
    assert {key: document["n"] for key, document in (await in_redis(own_stack)).items()} == expected
    assert {key: document["n"] for key, document in (await in_mongodb(own_stack)).items()} == expected


async def test_a_backfill_after_a_restart_is_no_write(own_stack: Stack) -> None:
    """As of a reconciler that found the drift before, and was held up."""
    await own_stack.start()
    await put(own_stack, "a", 0)
    snapshot(own_stack)
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    await lose(own_stack)
    engine = await open_engine(own_stack.redis_client, own_stack.settings.mappings[1])
    entry: Any = {"k": "notes:a", "e": BACKFILL, "l": await engine.life()}
    await own_stack.redis_client.xadd(NAMES.stream, entry)
    await own_stack.worker.start()
    await recovered(own_stack)
    assert (await in_redis(own_stack))["a"]["n"] == (await in_mongodb(own_stack))["a"]["n"] == 1


async def test_what_was_heard_before_a_restart_is_no_write_since(tmp_path_factory: pytest.TempPathFactory) -> None:
    stack = KindStack(tmp_path_factory.mktemp("heard"), "redis-8.2-function", WT_LEASE_TTL="10", WT_MONGO_TIMEOUT="5")
    try:
        await stack.start()
        await put(stack, "a", 0)
        snapshot(stack)
        await put(stack, "a", 1)
        await stack.worker.stop()
        await stack.worker.start(FAILPOINTS="freeze plain writes heard")
        stack.mongo.freeze()
        await queue(stack, "other", n=0)  # the committer waits for MongoDB
        await stack.set("a", {"id": "a", "n": 2}, "notes")
        await stack.worker.reaches_failpoint()
        lease: Any = await stack.redis_client.get(NAMES.lease)
        await lose_everything_since(stack, "snapshot")
        await stack.redis_client.set(NAMES.lease, lease, px=10_000)
        stack.worker.thaw()

        async def listening() -> bool:
            return b"listening to plain clients again" in stack.worker.log.read_bytes()

        await eventually(listening)
        stack.mongo.thaw()
        await recovered(stack)
        assert (await in_redis(stack))["a"]["n"] == (await in_mongodb(stack))["a"]["n"] == 1
    finally:
        await stack.close()


async def test_a_write_that_was_acknowledged_and_then_deleted_is_not_called_refused(own_stack: Stack) -> None:
    """Redis falls back to where it waited to be committed, and is given back the delete."""
    await own_stack.start()
    await put(own_stack, "other", 0)
    await own_stack.worker.stop()
    token = await queue(own_stack, "a", n=1)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    await own_stack.worker.start()
    await own_stack.drained("notes")
    assert (await own_stack.client.delete("/notes/a")).status_code == 204
    await lose_everything_since(own_stack, "snapshot")
    await recovered(own_stack)
    assert await standing(own_stack, token) == "committed"
    assert not await own_stack.mongo_client.test.sync_dead_letters.count_documents({})
