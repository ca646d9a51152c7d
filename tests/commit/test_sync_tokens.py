"""What is said of tokens when Redis has forgotten something: `committed`, `lost`, and none is given out twice."""

import os
import shutil

import anyio
import pytest

from gears.contract.write_tokens import EntryId
from tests.loss.test_rewind import in_mongodb, in_redis, lose_everything_since, put, recovered, standing
from tests.support.engines import KindStack
from tests.support.stack import Stack, eventually


@pytest.mark.parametrize("lost", ["tail", "all"])
async def test_a_token_of_what_redis_lost_is_called_lost_and_one_of_what_mongodb_has_committed(
    lost: str, own_stack: Stack
) -> None:
    await own_stack.start()
    before = await put(own_stack, "before", 0)
    [aof] = (own_stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
    size = aof.stat().st_size
    committed = await put(own_stack, "committed", 0)
    await own_stack.worker.stop()
    answer = await own_stack.client.put("/notes/pending", json={}, headers={"Prefer": "respond-async"})
    pending = answer.headers["Sync-Token"]
    assert await standing(own_stack, pending) == "pending"
    if lost == "tail":
        await own_stack.redis.kill()
        os.truncate(aof, size)
        await own_stack.redis.start()
    else:
        await lose_everything_since(own_stack, None)
    await own_stack.worker.start()
    await recovered(own_stack)
    after = await put(own_stack, "after", 0)
    tokens = {"before": before, "committed": committed, "pending": pending, "after": after}
    expected = {"before": "committed", "committed": "committed", "pending": "lost", "after": "committed"}
    assert {name: await standing(own_stack, token) for name, token in tokens.items()} == expected
    assert (await own_stack.client.get(f"/sync/{pending}")).json()["committed"] is False
    assert set(await in_mongodb(own_stack)) == {"before", "committed", "after"}
    await own_stack.worker.kill()
    await own_stack.redis.kill()
    await own_stack.redis.start()
    await own_stack.worker.start()
    last = await put(own_stack, "last", 0)
    assert {name: await standing(own_stack, token) for name, token in tokens.items()} == expected
    assert await standing(own_stack, last) == "committed"


async def test_every_token_of_a_backlog_is_called_committed_up_to_where_redis_forgot_that_it_was(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The worker goes down with Redis; its last batch is as new as those before it."""
    stack = KindStack(tmp_path_factory.mktemp("backlog"), "redis-stack-7.4-gears2", WT_BATCH_SIZE="5", WT_LEASE_TTL="1")
    try:
        await stack.start()
        await put(stack, "before", 0)
        await stack.worker.stop()
        [aof] = (stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
        size = aof.stat().st_size
        asynchronous = {"Prefer": "respond-async"}
        answers = [await stack.client.put(f"/notes/{n}", json={}, headers=asynchronous) for n in range(20)]
        await stack.worker.start(wait=False, FAILPOINTS="kill:3 acknowledged")
        await stack.worker.ends()
        await stack.redis.kill()
        os.truncate(aof, size)
        await stack.redis.start()
        await stack.worker.start()
        await recovered(stack)
        await put(stack, "after", 0)
        assert set(await in_mongodb(stack)) == {"before", "after", *map(str, range(15))}
        found = [await standing(stack, answer.headers["Sync-Token"]) for answer in answers]
        assert found == ["committed"] * 15 + ["lost"] * 5
    finally:
        await stack.close()


async def test_no_token_is_called_committed_when_only_the_checkpoint_had_reached_mongodb(own_stack: Stack) -> None:
    """Checkpoint and documents are written at the same time; Redis and the worker go down in between."""
    await own_stack.start()
    committed = await put(own_stack, "committed", 0)
    await own_stack.worker.stop()
    [aof] = (own_stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
    size = aof.stat().st_size
    asynchronous = {"Prefer": "respond-async"}
    answers = [await own_stack.client.put(f"/notes/{n}", json={}, headers=asynchronous) for n in range(3)]
    await own_stack.worker.start(wait=False, FAILPOINTS="kill acknowledging")
    await own_stack.worker.ends()
    await own_stack.mongo_client.test.notes.delete_one({"id": "1"})  # as if it had not come
    await own_stack.redis.kill()
    os.truncate(aof, size)
    await own_stack.redis.start()
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "after", 0)
    assert [await standing(own_stack, answer.headers["Sync-Token"]) for answer in answers] == ["unknown"] * 3
    assert await standing(own_stack, committed) == "committed"


@pytest.mark.parametrize("kind", ["redis-stack-7.4-gears2", "redis-8.2-function"])
async def test_no_token_is_given_out_twice_though_the_stream_is_ahead_of_the_clock(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stack = KindStack(tmp_path_factory.mktemp("ahead"), kind, WT_LEASE_TTL="1.5")
    try:
        await stack.start()
        await stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
        await put(stack, "committed", 0)
        await stack.worker.stop()
        [aof] = (stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
        size = aof.stat().st_size
        asynchronous = {"Prefer": "respond-async"}
        lost = [await stack.client.put(f"/notes/lost-{n}", json={}, headers=asynchronous) for n in range(3)]
        await stack.redis.kill()
        os.truncate(aof, size)
        await stack.redis.start()
        await eventually(lambda: captures(stack))
        kept = [await stack.client.put(f"/notes/kept-{n}", json={}, headers=asynchronous) for n in range(3)]
        await stack.worker.start()
        await recovered(stack)
        await put(stack, "after", 0)
        assert [await standing(stack, answer.headers["Sync-Token"]) for answer in lost] == ["lost"] * 3
        assert [await standing(stack, answer.headers["Sync-Token"]) for answer in kept] == ["committed"] * 3
        assert set(await in_mongodb(stack)) == {"committed", "after", *(f"kept-{n}" for n in range(3))}
    finally:
        await stack.close()


@pytest.mark.parametrize("kind", ["redis-stack-7.4-gears2", "redis-8.2-function"])
async def test_no_token_is_given_out_twice_though_redis_loses_what_it_passed_on_to(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The stream is ahead of the clock; the worker moves it on, and then, when Redis has forgotten that, the recipe."""
    stack = KindStack(tmp_path_factory.mktemp("twice"), kind, WT_LEASE_TTL="1.5")
    try:
        await stack.start()
        await stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
        await put(stack, "before", 0)
        await stack.worker.stop()
        await stack.redis.kill()
        await stack.redis.start()
        await eventually(lambda: captures(stack))
        [aof] = (stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
        size = aof.stat().st_size
        await stack.worker.start()
        await recovered(stack)
        committed = [await put(stack, str(n), 1) for n in range(5)]
        await stack.worker.kill()
        await stack.redis.kill()
        os.truncate(aof, size)
        await stack.redis.start()
        await eventually(lambda: captures(stack))
        asynchronous = {"Prefer": "respond-async"}
        again = [await stack.client.put(f"/notes/{n}", json={"n": 2}, headers=asynchronous) for n in (5, 6, 7, 8, 9, 0)]
        assert {answer.headers["Sync-Token"] for answer in again}.isdisjoint(committed)
        await stack.worker.start()
        await recovered(stack)
        expected = {"before": 0, **dict.fromkeys("1234", 1), **dict.fromkeys("567890", 2)}
        for side in (await in_mongodb(stack), await in_redis(stack)):
            assert {key: document["n"] for key, document in side.items() if key != "kept-0"} == expected
    finally:
        await stack.close()


async def test_what_was_written_after_a_flush_is_kept_or_called_lost_though_the_ids_went_back(own_stack: Stack) -> None:
    """And nobody commits between the flush and a restart of Redis that loses its tail, while ids were ahead before."""
    await own_stack.start()
    await put(own_stack, "first", 0)
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    committed = [await put(own_stack, "kept", 0), await put(own_stack, "deleted", 0), await put(own_stack, "lost", 0)]
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    asynchronous = {"Prefer": "respond-async"}

    async def write(document_id: str, n: int) -> str:
        answer = await own_stack.client.put(f"/notes/{document_id}", json={"n": n}, headers=asynchronous)
        assert answer.status_code == 202, answer.text
        return answer.headers["Sync-Token"]

    kept = await write("kept", 1)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    lost = await write("lost", 1)
    await lose_everything_since(own_stack, "snapshot")
    await own_stack.worker.start()
    await recovered(own_stack)
    assert await standing(own_stack, kept) == "committed"
    assert await standing(own_stack, lost) == "lost"
    assert [await standing(own_stack, token) for token in committed] == ["committed"] * 3
    expected = {"first": 0, "kept": 1, "deleted": 0, "lost": 0}
    assert {key: document["n"] for key, document in (await in_mongodb(own_stack)).items()} == expected
    assert {key: document["n"] for key, document in (await in_redis(own_stack)).items()} == expected


async def test_what_was_written_after_a_flush_is_called_lost_when_redis_falls_back_to_before_it(
    own_stack: Stack,
) -> None:
    await own_stack.start()
    await put(own_stack, "first", 0)
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    committed = await put(own_stack, "a", 0)
    await own_stack.worker.stop()
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    await own_stack.redis_client.flushall()
    answer = await own_stack.client.put("/notes/a", json={"n": 1}, headers={"Prefer": "respond-async"})
    await lose_everything_since(own_stack, "snapshot")
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "b", 0)
    tokens = (committed, answer.headers["Sync-Token"])
    assert [await standing(own_stack, token) for token in tokens] == ["committed", "lost"]
    assert (await in_mongodb(own_stack))["a"]["n"] == 0


@pytest.mark.parametrize(
    "again", [False, True], ids=["one committer later", "and the next committer ended before its first batch"]
)
async def test_no_token_is_called_committed_when_its_refusal_had_not_come(own_stack: Stack, *, again: bool) -> None:
    """The checkpoint and the documents had, when worker and Redis went down."""
    await own_stack.start()
    await put(own_stack, "before", 0)
    await own_stack.worker.stop()
    asynchronous = {"Prefer": "respond-async"}
    answer = await own_stack.client.put("/notes/refused", json={}, headers=asynchronous)
    await own_stack.set("refused", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start(wait=False, FAILPOINTS="kill dead letters kept")
    await own_stack.worker.ends()
    await own_stack.mongo_client.test.sync_dead_letters.delete_many({})  # as if it had not come
    await lose_everything_since(own_stack, None)
    if again:
        await own_stack.worker.start(wait=False, FAILPOINTS="kill checked", MAPPINGS="notes=test.notes:id")
        await own_stack.worker.ends()
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "after", 0)
    assert set(await in_mongodb(own_stack)) == {"before", "after"}
    assert await standing(own_stack, answer.headers["Sync-Token"]) == "unknown"


async def test_what_was_written_between_two_flushes_is_called_lost_though_the_ids_went_back(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "first", 0)
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    committed = await put(own_stack, "a", 0)
    await own_stack.worker.stop()
    tokens = []
    for n in (1, 2):
        await own_stack.redis_client.flushall()
        answer = await own_stack.client.put("/notes/a", json={"n": n}, headers={"Prefer": "respond-async"})
        tokens.append(answer.headers["Sync-Token"])
    await own_stack.worker.start()
    await recovered(own_stack)
    assert [await standing(own_stack, token) for token in (committed, *tokens)] == ["committed", "lost", "committed"]
    assert (await in_mongodb(own_stack))["a"]["n"] == 2


async def captures(stack: Stack) -> bool:
    """Whether the API takes writes again."""
    answer = await stack.client.put("/notes/kept-0", json={}, headers={"Prefer": "respond-async"})
    return answer.status_code == 202


async def test_a_restart_that_lost_nothing_makes_no_token_of_another_mapping_lost(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    await own_stack.redis.kill()
    await own_stack.redis.start()
    await recovered(own_stack)
    answer = await own_stack.client.put("/todos/a", json={"name": "a"}, headers={"Prefer": "wait=20"})
    token = answer.headers["Sync-Token"]
    await put(own_stack, "b", 0)
    assert (await own_stack.client.get(f"/sync/{token}")).json()["committed"] is True


async def test_what_is_called_lost_is_called_so_when_redis_is_emptied_later(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    await own_stack.worker.stop()
    answer = await own_stack.client.put("/notes/a", json={"n": 1}, headers={"Prefer": "respond-async"})
    lost = answer.headers["Sync-Token"]
    for _ in range(2):
        await lose_everything_since(own_stack, None)
        await own_stack.worker.start()
        await recovered(own_stack)
        await put(own_stack, "b", 0)
        assert await standing(own_stack, lost) == "lost"
        await own_stack.worker.stop()


@pytest.mark.parametrize("lost", ["tail", "all"])
async def test_what_was_committed_is_not_called_lost_though_the_first_commit_after_a_rewind_was_not_acknowledged(
    lost: str, own_stack: Stack
) -> None:
    await own_stack.start()
    tokens = [await put(own_stack, "a", 0)]
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    tokens += [await put(own_stack, "b", 0), await put(own_stack, "c", 0)]
    await own_stack.worker.stop()
    await lose_everything_since(own_stack, "snapshot" if lost == "tail" else None)
    await own_stack.redis_client.delete("sync:{notes}:lease", "sync:{todos}:lease")
    await own_stack.set("d", {"n": 0}, prefix="notes")
    await own_stack.worker.start(wait=False, FAILPOINTS="kill acknowledging", MAPPINGS="notes=test.notes:id")
    await own_stack.worker.ends()
    await own_stack.worker.start()
    await recovered(own_stack)
    assert [await standing(own_stack, token) for token in tokens] == ["committed"] * 3


async def test_a_write_that_waits_is_not_confirmed_though_its_id_is_below_what_was_committed_before_a_flush(
    own_stack: Stack,
) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    await put(own_stack, "a", 1)
    await own_stack.worker.kill()
    await own_stack.redis_client.flushall()
    answers = []

    async def write() -> None:
        answers.append(await own_stack.client.put("/notes/x", json={}, headers={"Prefer": "wait=20"}, timeout=30))

    async def captured() -> bool:
        return bool(await own_stack.redis_client.xlen("sync:{notes}"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await eventually(captured)
        await own_stack.redis_client.flushall()
        await own_stack.worker.start(wait=False)
    assert answers[0].status_code == 504
    await recovered(own_stack)
    assert set(await in_mongodb(own_stack)) == {"a"}
