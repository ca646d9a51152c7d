"""Reading what only MongoDB holds: once for all who ask, and never against a delete."""

from asyncio import gather

import anyio
import httpx
from redis.asyncio import Redis

from service.single_flight import SingleFlight
from tests.stack import Stack


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
