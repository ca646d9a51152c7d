"""Promises 1 and 3, as an HTTP client sees them."""

from typing import Any

import anyio
import httpx
import pytest

from gears.engines import open_engine
from tests.support.stack import Stack, eventually, free_port


async def test_a_2xx_means_that_mongodb_has_it(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    async def write(client_number: int) -> None:
        for n in range(20):
            document_id = f"{new_id}-{client_number}-{n % 5}"
            answer = await api.put(f"/notes/{document_id}", json={"n": n})
            assert answer.status_code in (200, 201), answer.text
            stored = await stack.stored(document_id, "notes")
            assert stored == {"id": document_id, "n": n}, "acknowledged, and not in MongoDB"

    async with anyio.create_task_group() as tasks:
        for client_number in range(20):
            tasks.start_soon(write, client_number)


@pytest.mark.parametrize("victim", ["mongo", "worker"])
async def test_what_was_acknowledged_under_failures_is_in_mongodb(victim: str, own_stack: Stack) -> None:
    await own_stack.start()
    acknowledged: dict[str, int] = {}
    outcomes: dict[int, int] = {}

    async def write(client_number: int, stop: anyio.Event) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            document_id = str(client_number)
            answer = await own_stack.client.put(f"/notes/{document_id}", json={"n": n})
            outcomes[answer.status_code] = outcomes.get(answer.status_code, 0) + 1
            if answer.status_code in (200, 201):
                acknowledged[document_id] = n
                stored = await _stored_whatever_it_takes(own_stack, document_id)
                assert stored["n"] >= n, "acknowledged, and not in MongoDB"
            else:
                assert answer.status_code in (503, 504), answer.text
                assert answer.headers["content-type"] == "application/problem+json"

    async with anyio.create_task_group() as tasks:
        stop = anyio.Event()
        for client_number in range(8):
            tasks.start_soon(write, client_number, stop)
        process = getattr(own_stack, victim)
        for hurt in (process.kill, _frozen(process)):
            await _more(acknowledged, 100)
            await hurt()
            if not process.running:
                await process.start(wait=False)
        await _more(acknowledged, 100)
        stop.set()
    await own_stack.drained("notes")
    for document_id, n in acknowledged.items():
        stored = await own_stack.stored(document_id, "notes")
        assert stored is not None
        assert stored["n"] >= n
    assert outcomes.get(200, 0) > 100


async def test_an_acknowledged_delete_stays_deleted(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.api.start(WT_COMMIT_TIMEOUT="20")
    for n in range(10):
        assert (await own_stack.client.put(f"/notes/{n}", json={"n": n})).status_code == 201
        assert (await own_stack.client.delete(f"/notes/{n}")).status_code == 204
        if n % 3 == 0:
            await own_stack.worker.kill()
            await own_stack.worker.start()
        if n % 3 == 1:
            await own_stack.redis.kill()
            await own_stack.redis.start()
            await own_stack.worker.wait_ready()
        for _ in range(3):
            assert (await own_stack.client.get(f"/notes/{n}")).status_code == 404
        assert await own_stack.stored(str(n), "notes") is None
    assert await own_stack.todos.database.notes.count_documents({}) == 0


async def test_a_read_while_a_delete_waits_does_not_bring_the_document_back(own_stack: Stack) -> None:
    await own_stack.start()
    await own_stack.client.put("/notes/a", json={"n": 1})
    await own_stack.worker.stop()
    answer = await own_stack.client.delete("/notes/a", headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert await own_stack.stored("a", "notes") is not None, "MongoDB still holds it"
    assert (await own_stack.client.get("/notes/a")).status_code == 404
    await own_stack.worker.start()
    await own_stack.drained("notes")
    assert await own_stack.stored("a", "notes") is None
    assert (await own_stack.client.get("/notes/a")).status_code == 404


async def test_a_stale_read_through_is_put_right(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    """As if a ticket had been given to a reader of what is old already, which shouldn't be."""
    await api.put(f"/notes/{new_id}", json={"n": 1})
    old = await stack.mongo_client.test.notes.find_one({"id": new_id})
    assert old is not None
    await api.put(f"/notes/{new_id}", json={"n": 2})
    await stack.redis_client.pexpire(f"notes:{new_id}", 1)
    await eventually(lambda: _absent(stack, f"notes:{new_id}"))
    engine = await open_engine(stack.redis_client, stack.settings.mappings[1])
    ticket = await engine.ticket(new_id)
    assert ticket
    assert await engine.fill(new_id, b'{"n":1}', version=old["_sync"]["v"], ticket=ticket) == b'{"n":1}'
    await stack.drained("notes")
    assert await stack.get(new_id, prefix="notes") == {"id": new_id, "n": 2}
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 2}


async def test_a_read_through_costs_mongodb_no_write(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    await api.put(f"/notes/{new_id}", json={"n": 1})
    before = await stack.mongo_client.test.notes.find_one({"id": new_id})
    await stack.redis_client.pexpire(f"notes:{new_id}", 1)
    await eventually(lambda: _absent(stack, f"notes:{new_id}"))
    assert (await api.get(f"/notes/{new_id}")).json() == {"id": new_id, "n": 1}
    assert await stack.redis_client.exists(f"notes:{new_id}")
    await stack.drained("notes")
    assert await stack.mongo_client.test.notes.find_one({"id": new_id}) == before


async def test_two_apis_and_two_workers_keep_the_same_promises(own_stack: Stack) -> None:
    await own_stack.start()
    port = free_port()
    second_api, second_worker = own_stack.another_api("api-2", port), own_stack.another_worker("worker-2")
    await second_api.start()
    await second_worker.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as other:
            for n in range(30):
                one, two = (own_stack.client, other) if n % 2 else (other, own_stack.client)
                if n == 15:
                    await own_stack.worker.kill()
                written = await one.put("/notes/a", json={"n": n}, headers={"Prefer": "wait=20"})
                assert written.is_success, written.text
                read = await two.get("/notes/a")
                assert read.json() == {"id": "a", "n": n}
                assert read.headers["ETag"] == written.headers["ETag"]
                assert await own_stack.stored("a", "notes") == {"id": "a", "n": n}
            created = await own_stack.client.post("/notes", json={"id": "b"}, headers={"Prefer": "respond-async"})
            assert created.status_code == 202
            assert (await other.post("/notes", json={"id": "b"})).status_code == 409
    finally:
        for process in (second_api, second_worker):
            await process.kill()


async def _absent(stack: Stack, key: str) -> bool:
    return not await stack.redis_client.exists(key)


async def _more(acknowledged: dict[str, int], enough: int) -> None:
    before = sum(acknowledged.values())

    async def probe() -> bool:
        return sum(acknowledged.values()) >= before + enough

    await eventually(probe, within=40)


def _frozen(process: Any) -> Any:
    async def freeze() -> None:
        process.freeze()
        await anyio.sleep(2.5)  # longer than the lease and the deadlines of the stack's processes
        process.thaw()

    return freeze


async def _stored_whatever_it_takes(stack: Stack, document_id: str) -> dict[str, Any]:
    async def probe() -> dict[str, Any] | None:
        try:
            return await stack.stored(document_id, "notes")
        except Exception:  # noqa: BLE001 MongoDB is being hurt
            return None

    found: dict[str, Any] = await eventually(probe, within=30)
    return found
