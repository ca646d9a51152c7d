"""Reading what only MongoDB holds: once for all who ask, and never against a delete."""

from asyncio import gather
from typing import Any

import anyio
import httpx
import pytest
from redis.asyncio import Redis

from gears.contract.mongo_form import Stored
from gears.engines.engine_of_mapping import Engines
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_redis.client import connect
from service.documents.read_through import ReadThrough
from service.documents.single_flight import SingleFlight
from tests.support.stack import Stack, eventually
from tests.wire import WireProxy, on
from tests.wire.actions import Exchange


async def test_a_read_never_brings_a_deleted_document_back(
    stack: Stack, api: httpx.AsyncClient, redis: Redis, new_id: str
) -> None:
    ids = [f"{new_id}-{number}" for number in range(20)]
    for document_id in ids:
        await api.put(f"/notes/{document_id}", json={"n": 1})
    await stack.drained("notes")
    await gather(*(redis.pexpire(f"notes:{document_id}", 1) for document_id in ids))
    await anyio.sleep(0.05)

    async def delete_while_reading(document_id: str) -> None:
        path = f"/notes/{document_id}"
        deleted, *reads = await gather(api.delete(path), *(api.get(path) for _ in range(4)))
        assert deleted.status_code == 204
        assert {read.status_code for read in reads} <= {200, 404}
        assert (await api.get(path)).status_code == 404

    for document_id in ids:
        await delete_while_reading(document_id)
    await stack.drained("notes")
    for document_id in ids:
        assert not await redis.exists(f"notes:{document_id}")
        assert await stack.stored(document_id, "notes") is None


class SlowStore(Store):
    """MongoDB, whose answer to a read takes until it is let through."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.has_read = anyio.Event()
        self.go_on = anyio.Event()

    async def find_alive(self, document_id: str) -> Stored | None:
        found = await super().find_alive(document_id)
        self.has_read.set()
        await self.go_on.wait()
        return found


@pytest.mark.parametrize("engine", ["gears2", "function"])
@pytest.mark.parametrize("written", ["while MongoDB is read", "before, and committed meanwhile"])
async def test_a_slow_read_gives_redis_nothing_older_than_was_acknowledged(
    own_stack: Stack, new_id: str, engine: str, written: str
) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    env = {"WT_ENGINE": engine, "WT_LEASE_TTL": "60", "WT_COMMIT_TIMEOUT": "60", "WT_MONGO_TIMEOUT": "60"}
    worker = own_stack.another_worker("patient", **env)
    api, path, key = (
        own_stack.another_api("own-api", own_stack.setup.port, **env),
        f"/notes/{new_id}",
        f"notes:{new_id}",
    )
    await own_stack.start(worker, api)
    mapping = own_stack.settings.mappings[1]
    mongo = open_client(own_stack.mongo_uri, timeout=10)
    store = SlowStore(mongo, mapping)
    try:
        async with connect(own_stack.redis_url, timeout=5) as redis, anyio.create_task_group() as tasks:
            documents = ReadThrough(mapping, redis, store, Engines(redis, [mapping], engine), lambda: True)
            assert (await own_stack.client.put(path, json={"n": 1})).status_code == 201
            await own_stack.drained("notes")
            if written == "while MongoDB is read":
                await expire(redis, key)
                tasks.start_soon(documents.read, new_id)
                await store.has_read.wait()
                assert (await own_stack.client.put(path, json={"n": 2})).status_code == 200
            else:
                await worker.stop()
                worker = worker.armed(FAILPOINTS="freeze states read")
                await worker.start()
                later = {"Prefer": "respond-async"}
                assert (await own_stack.client.put(path, json={"n": 2}, headers=later)).status_code == 202
                await worker.reaches_failpoint()
                await expire(redis, key)
                tasks.start_soon(documents.read, new_id)
                await store.has_read.wait()
                worker.thaw()
            await own_stack.drained("notes")
            await worker.stop()  # it would put right what Redis was given
            await expire(redis, key)
            store.go_on.set()
        assert (await own_stack.client.get(path)).json() == {"id": new_id, "n": 2}
    finally:
        mongo.close()
        for process in (worker, api):
            if process.running:
                process.thaw()
                await process.kill()


async def test_what_is_deleted_while_mongodb_is_asked_does_not_count_as_existing(own_stack: Stack, new_id: str) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    worker = own_stack.another_worker("patient", WT_LEASE_TTL="60", WT_MONGO_TIMEOUT="60")
    mapping = own_stack.settings.mappings[1]
    await worker.start()
    await own_stack.set(new_id, {"n": 1}, "notes")
    await own_stack.drained("notes")
    await worker.stop()
    await worker.start(FAILPOINTS="freeze states read")

    async def answer_late(exchange: Exchange) -> None:
        found = await exchange.forward()
        worker.thaw()
        await own_stack.drained("notes", within=60)
        await exchange.answer(found)

    async with WireProxy(own_stack.setup.mongo_port) as proxy, connect(own_stack.redis_url, timeout=5) as redis:
        mongo = open_client(proxy.uri, timeout=60)
        try:
            await own_stack.redis_client.delete(f"notes:{new_id}")
            await worker.reaches_failpoint()
            reads = ReadThrough(
                mapping, redis, Store(mongo, mapping), Engines(redis, [mapping], "gears2"), lambda: True
            )
            with proxy.rule(on("find", "notes").next(), answer_late):
                assert await reads.cold([new_id], 60) == set()
            assert proxy.counts["find"] >= 2, "it asked again"
        finally:
            mongo.close()
            worker.thaw()
            await worker.kill()


async def expire(redis: Redis, key: str) -> None:
    await redis.pexpire(key, 1)

    async def expired() -> bool:
        return not await redis.exists(key)

    await eventually(expired)


async def test_many_who_want_the_same_read_it_once() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    reads = 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        await anyio.sleep(0.01)
        return reads

    results = await gather(*(flights.run("x", read) for _ in range(10)), flights.run("y", read))
    assert reads == 2
    assert [own for _, own in results].count(True) == 2
    assert await flights.run("x", read) == (3, True)


async def test_who_waits_for_another_goes_on_when_that_fails() -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    async def fail() -> int:
        await anyio.sleep(0.01)
        raise OSError

    failed, followed = await gather(flights.run("x", fail), flights.run("x", one), return_exceptions=True)
    assert isinstance(failed, OSError)
    assert followed == (1, True)


async def test_who_waits_for_another_goes_on_when_that_is_cancelled() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    results: list[tuple[int, bool]] = []

    async def lead() -> None:
        await flights.run("x", never)

    async def follow() -> None:
        results.append(await flights.run("x", one))

    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(0.02):
            async with anyio.create_task_group() as leader:
                leader.start_soon(lead)
                await anyio.sleep(0.01)
                tasks.start_soon(follow)
    assert results == [(1, True)]


async def one() -> int:
    return 1


async def never() -> int:
    await anyio.sleep_forever()
    return 0
