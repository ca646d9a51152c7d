"""Promises 2 and 3 when Redis comes back older than MongoDB: without its tail, emptied, with its clock set back."""

import shutil
from typing import Any

import anyio
import pytest

from gears.contract.write_tokens import EntryId
from tests.support.stack import Stack, eventually


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


async def recovered(stack: Stack, *, within: float = 60) -> None:
    """Wait until the API says that all is well, and Redis has all that it is to be given, in so many seconds."""

    async def probe() -> bool:
        if (await stack.client.get("/readyz")).status_code != 200:
            return False
        mappings = (await stack.client.get("/sync")).json()["mappings"].values()
        return all(mapping["worker"] and mapping["worker"]["to_warm"] == 0 for mapping in mappings)

    await eventually(probe, within=within)
    await stack.drained("notes", within=within)


async def standing(stack: Stack, token: str) -> str:
    answer = (await stack.client.get(f"/sync/{token}", params={"mapping": "notes"})).json()
    assert answer["committed"] == (answer["mappings"]["notes"] == "committed")
    return str(answer["mappings"]["notes"])


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
    given = (rewinds["last"]["deletes"], rewinds["last"]["documents"])
    assert given == ((0, 0) if lost == "all" else (10, 20)), "where nothing is left, nothing must be given back first"


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
    assert "may have lost it" in answers[0].json()["detail"]
    assert await standing(own_stack, answers[0].headers["Sync-Token"]) == "pending"
    await own_stack.worker.start()
    await recovered(own_stack)
    assert await standing(own_stack, answers[0].json()["token"]) == "committed"


@pytest.mark.parametrize("before", ["nothing", "something", "something, by ids ahead of the clock"])
async def test_a_write_that_waits_while_redis_is_emptied_is_not_called_confirmed(own_stack: Stack, before: str) -> None:
    """Whatever was committed before."""
    await own_stack.start()
    if "ahead" in before:
        await own_stack.redis_client.xadd("sync:{notes}", {"e": "x"}, id=str(EntryId(2**42, 0)))
    if before != "nothing":
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
        token = f"{entry[1][b'l'].decode()}.{entry[0].decode()}"  # type: ignore[index,union-attr]
        await own_stack.redis_client.flushall()
        await own_stack.set("b", {"n": 1}, prefix="notes")
        if before == "something":
            assert await standing(own_stack, token) == "lost"
        await own_stack.worker.start()
        await put(own_stack, "b", 2)
    assert answers[0].status_code == 504, "acknowledged, and not in MongoDB"
    assert "have lost it" in answers[0].json()["detail"]
    assert await standing(own_stack, token) == "lost"
    assert set(await in_mongodb(own_stack)) == ({"b"} if before == "nothing" else {"a", "b"})


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
