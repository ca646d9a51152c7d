"""Promises 2 and 3 when Redis comes back older than MongoDB: without its tail, emptied, with its clock set back."""

import os
import shutil
from typing import Any

import anyio
import pytest

from gears.stream import EntryId
from tests.engines import KindStack
from tests.stack import Stack, eventually


async def in_redis(stack: Stack) -> dict[str, Any]:
    """All documents of the mapping `notes` in Redis, by id."""
    keys = [key async for key in stack.redis_client.scan_iter("notes:*", count=1000)]
    return {
        key.removeprefix(b"notes:").decode(): await stack.get(key.removeprefix(b"notes:").decode(), "notes")
        for key in keys
    }


async def in_mongodb(stack: Stack) -> dict[str, Any]:
    """All documents of the mapping `notes` in MongoDB, by id."""
    found = stack.mongo_client.test.notes.find({}, {"_id": 0, "_sync": 0})
    return {document["id"]: document async for document in found}


async def put(stack: Stack, document_id: str, n: int) -> str:
    answer = await stack.client.put(f"/notes/{document_id}", json={"n": n}, headers={"Prefer": "wait=20"})
    assert answer.is_success, answer.text
    return answer.headers["Sync-Token"]


async def recovered(stack: Stack) -> None:
    """Wait until the API says that all is well."""

    async def probe() -> bool:
        return (await stack.client.get("/readyz")).status_code == 200

    await eventually(probe, within=20)
    await stack.drained("notes")


async def lose_everything_since(stack: Stack, snapshot: str | None) -> None:
    """Kill Redis and start it with an older data folder, or with none."""
    await stack.redis.kill()
    shutil.rmtree(stack.folder / "redis")
    if snapshot is None:
        (stack.folder / "redis").mkdir()
    else:
        shutil.copytree(stack.folder / snapshot, stack.folder / "redis")
    await stack.redis.start()


@pytest.mark.parametrize("lost", ["tail", "all"])
async def test_nothing_acknowledged_is_lost_when_redis_loses_its(lost: str, own_stack: Stack) -> None:
    await own_stack.start()
    for n in range(30):
        await put(own_stack, str(n), 0)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    for n in range(0, 30, 2):
        await put(own_stack, str(n), 1)
    for n in range(0, 30, 3):
        assert (await own_stack.client.delete(f"/notes/{n}")).status_code == 204
    for n in range(30, 40):
        await put(own_stack, str(n), 1)
    expected = await in_mongodb(own_stack)
    await lose_everything_since(own_stack, "snapshot" if lost == "tail" else None)
    await recovered(own_stack)
    assert await in_mongodb(own_stack) == expected
    assert await in_redis(own_stack) == expected
    for n in range(0, 30, 3):
        assert (await own_stack.client.get(f"/notes/{n}")).status_code == 404
    rewinds = (await own_stack.client.get("/sync")).json()["mappings"]["notes"]["rewinds"]
    assert rewinds["count"] == 1
    assert (rewinds["last"]["deletes"], rewinds["last"]["documents"]) == (10, len(expected) if lost == "all" else 20)


async def test_where_it_is_asked_for_somebody_decides_first(own_stack: Stack) -> None:
    own_stack.worker = own_stack.another_worker("worker", WT_REWIND="report")
    await own_stack.start()
    for document_id in ("kept", "changed", "deleted", "written"):
        await put(own_stack, document_id, 0)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    for document_id in ("changed", "written"):
        await put(own_stack, document_id, 1)
    assert (await own_stack.client.delete("/notes/deleted")).status_code == 204
    expected = await in_mongodb(own_stack)
    await lose_everything_since(own_stack, "snapshot")

    async def blocked() -> bool:
        answer = await own_stack.client.get("/readyz")
        checks = answer.json()["checks"] if answer.status_code in (200, 503) else {}
        return "SET 'sync:{notes}:rewind' restore" in checks.get("worker:notes", "")

    await eventually(blocked, within=20)
    ready = (await own_stack.client.get("/readyz")).json()
    assert "2 documents and 1 deletes" in ready["checks"]["worker:notes"]
    overview = (await own_stack.client.get("/sync")).json()["mappings"]["notes"]
    assert overview["worker"]["state"] == "blocked"
    last = overview["rewinds"]["last"]
    assert (last["documents"], last["deletes"], last["restored"], last["restored_at"]) == (2, 1, 0, None)
    await own_stack.set("written", {"n": 2}, prefix="notes")
    assert {i: document["n"] for i, document in (await in_redis(own_stack)).items()} == {
        "kept": 0,
        "changed": 0,
        "deleted": 0,
        "written": 2,
    }
    assert await in_mongodb(own_stack) == expected
    await own_stack.redis_client.set("sync:{notes}:rewind", "restore")
    await recovered(own_stack)
    assert await in_mongodb(own_stack) == expected | {"written": {"id": "written", "n": 2}}
    assert {i: document["n"] for i, document in (await in_redis(own_stack)).items()} == {
        "kept": 0,
        "changed": 1,
        "written": 2,
    }
    rewinds = (await own_stack.client.get("/sync")).json()["mappings"]["notes"]["rewinds"]
    assert (rewinds["count"], rewinds["last"]["restored"]) == (1, 2)
    assert rewinds["last"]["restored_at"] > rewinds["last"]["found_at"]


@pytest.mark.parametrize("lost", ["tail", "all"])
async def test_a_write_made_after_the_restart_wins(lost: str, own_stack: Stack) -> None:
    await own_stack.start()
    for document_id in ("kept", "changed", "deleted"):
        await put(own_stack, document_id, 0)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    for document_id in ("kept", "changed", "deleted"):
        await put(own_stack, document_id, 1)
    assert (await own_stack.client.delete("/notes/deleted")).status_code == 204
    await own_stack.worker.stop()
    await lose_everything_since(own_stack, "snapshot" if lost == "tail" else None)
    if lost == "all":
        await own_stack.worker.start(wait=False)  # it installs the recipe

        async def installed() -> bool:
            return bool(
                await own_stack.redis_client.execute_command("TFUNCTION", "LIST", "LIBRARY", "writethrough_notes")
            )

        await eventually(installed)
    await own_stack.set("changed", {"n": 2}, prefix="notes")
    await own_stack.set("deleted", {"n": 2}, prefix="notes")
    if lost == "tail":
        await own_stack.worker.start(wait=False)
    await recovered(own_stack)
    expected = {"kept": 1, "changed": 2, "deleted": 2}
    assert {i: document["n"] for i, document in (await in_mongodb(own_stack)).items()} == expected
    assert {i: document["n"] for i, document in (await in_redis(own_stack)).items()} == expected


async def test_a_write_made_after_the_restart_wins_though_the_clock_was_set_back(own_stack: Stack) -> None:
    await own_stack.start()
    await put(own_stack, "a", 0)
    await put(own_stack, "b", 0)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    far = EntryId(2**42, 0)  # a clock that is decades ahead
    for key in ("notes:a", "notes:b"):
        await own_stack.redis_client.xadd(
            "sync:{notes}", {"k": key, "e": "json.set"}, id=str(far.next if key[-1] == "b" else far)
        )
    await put(own_stack, "b", 1)
    await own_stack.worker.stop()
    await lose_everything_since(own_stack, "snapshot")
    for n in (1, 2):
        await own_stack.set("a", {"n": n}, prefix="notes")
    await own_stack.worker.start(wait=False)
    await recovered(own_stack)
    expected = {"a": {"id": "a", "n": 2}, "b": {"id": "b", "n": 1}}
    assert await in_mongodb(own_stack) == expected
    assert {i: document | {"id": i} for i, document in (await in_redis(own_stack)).items()} == expected


async def test_flushall_is_a_loss_not_a_million_deletes(own_stack: Stack) -> None:
    await own_stack.start()
    for n in range(50):
        await put(own_stack, str(n), n)
    expected = await in_mongodb(own_stack)
    await own_stack.redis_client.flushall()

    async def back() -> bool:
        return len(await in_redis(own_stack)) == 50

    await eventually(back, within=20)
    await recovered(own_stack)
    assert await in_mongodb(own_stack) == expected
    assert await in_redis(own_stack) == expected


async def test_a_write_that_waits_while_redis_is_restarted_is_not_called_confirmed(own_stack: Stack) -> None:
    await own_stack.start()
    await own_stack.worker.stop()
    answers = []

    async def write() -> None:
        answers.append(await own_stack.client.put("/notes/a", json={"n": 1}, headers={"Prefer": "wait=30"}))

    async def captured() -> bool:
        return await own_stack.redis_client.xlen("sync:{notes}") == 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await eventually(captured)
        await own_stack.redis.kill()
        await own_stack.redis.start()
    assert answers[0].status_code == 504
    assert "Sync-Token" not in answers[0].headers
    assert "may have lost it" in answers[0].json()["detail"]


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

        async def killed() -> bool:
            return not stack.worker.running

        await eventually(killed)
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

    async def killed() -> bool:
        return not own_stack.worker.running

    await eventually(killed)
    await own_stack.mongo_client.test.notes.delete_one({"id": "1"})  # as if it had not come
    await own_stack.redis.kill()
    os.truncate(aof, size)
    await own_stack.redis.start()
    await own_stack.worker.start()
    await recovered(own_stack)
    await put(own_stack, "after", 0)
    assert [await standing(own_stack, answer.headers["Sync-Token"]) for answer in answers] == ["lost"] * 3
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
    expected = {"kept": 1, "deleted": 0, "lost": 0}
    assert {key: document["n"] for key, document in (await in_mongodb(own_stack)).items()} == expected
    assert {key: document["n"] for key, document in (await in_redis(own_stack)).items()} == expected


async def test_what_was_written_between_two_flushes_is_called_lost_though_the_ids_went_back(own_stack: Stack) -> None:
    await own_stack.start()
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


async def standing(stack: Stack, token: str) -> str:
    answer = (await stack.client.get(f"/sync/{token}", params={"mapping": "notes"})).json()
    assert answer["committed"] == (answer["mappings"]["notes"] == "committed")
    return str(answer["mappings"]["notes"])


@pytest.mark.parametrize("ahead", [False, True], ids=["ids go on", "ids went back"])
async def test_a_write_that_waits_while_redis_is_emptied_is_not_called_confirmed(
    own_stack: Stack, *, ahead: bool
) -> None:
    await own_stack.start()
    if ahead:
        await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    answers = []

    async def write() -> None:
        answers.append(await own_stack.client.put("/notes/lost", json={"n": 1}, headers={"Prefer": "wait=30"}))

    async def captured() -> bool:
        return await own_stack.redis_client.xlen("sync:{notes}") == 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await eventually(captured)
        [entry] = await own_stack.redis_client.xrange("sync:{notes}") or []
        token = entry[0].decode()  # type: ignore[union-attr]
        await own_stack.redis_client.flushall()
        await own_stack.set("b", {"n": 1}, prefix="notes")
        if not ahead:
            assert await standing(own_stack, token) == "pending", "nobody knows yet that it is lost"
        await own_stack.worker.start()
        await put(own_stack, "b", 2)
    assert answers[0].status_code == 504, "acknowledged, and not in MongoDB"
    assert "has lost it" in answers[0].json()["detail"]
    assert await standing(own_stack, token) == "lost"
    assert set(await in_mongodb(own_stack)) == {"a", "b"}


async def test_redis_is_restored_though_writes_come_in_the_moment_it_is_emptied(own_stack: Stack) -> None:
    """The committer must not go on with the new stream as if it were the old one."""
    await own_stack.start()
    for n in range(10):
        await put(own_stack, str(n), n)
    async with own_stack.redis_client.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        pipeline.execute_command("JSON.SET", "notes:new", "$", '{"n":1}')
        await pipeline.execute()

    async def back() -> bool:
        return len(await in_redis(own_stack)) == 11

    await eventually(back, within=20)
    await recovered(own_stack)
    assert set(await in_mongodb(own_stack)) == set(await in_redis(own_stack))


async def test_a_write_after_a_flush_waits_though_the_ids_went_back(own_stack: Stack) -> None:
    """As if the clock had been ahead before: what the API knows to be committed is above the new entry."""
    await own_stack.start()
    await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    await put(own_stack, "a", 1)
    await own_stack.worker.stop()
    await own_stack.redis_client.flushall()
    answer = await own_stack.client.put("/notes/a", json={"n": 2}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 504, "acknowledged, and not in MongoDB"
    await own_stack.worker.start(wait=False)
    await recovered(own_stack)
    assert (await in_mongodb(own_stack))["a"]["n"] == 2
    await put(own_stack, "a", 3)
    assert (await in_mongodb(own_stack))["a"]["n"] == 3
