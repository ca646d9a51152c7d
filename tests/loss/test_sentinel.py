"""Promises 2, 3 and 5 while sentinels promote a replica under load."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.loss.test_redis_killed import Load, State
from tests.loss.test_rewind import in_mongodb, in_redis, put, recovered
from tests.support.commands import Commands
from tests.support.engines import Kind
from tests.support.sentinels import WatchedStack
from tests.support.stack import eventually


@pytest_asyncio.fixture(loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WatchedStack]:
    stack = WatchedStack(
        tmp_path_factory.mktemp("watched"),
        Kind("function"),
        WT_LEASE_TTL="3",
        WT_REDIS_TIMEOUT="2",
    )
    try:
        yield stack
    finally:
        await stack.close()


@pytest.mark.timeout(900)
async def test_nothing_acknowledged_is_lost_on_the_way_to_sentinels_and_in_failovers_under_load(
    watched: WatchedStack, commands: Commands
) -> None:
    """As docs/scale.md has it: a Redis gets a replica and sentinels, then worker and API get another URL."""
    processes = watched.worker, watched.api
    watched.worker = watched.another_worker("first worker", REDIS_URL=watched.direct_url)
    watched.api = watched.another_api("first api", watched.setup.port, REDIS_URL=watched.direct_url)
    await watched.start(watched.redis, watched.mongo)
    await watched.worker.start(wait=False)
    await watched.api.start()

    async def ready() -> bool:
        return (await watched.client.get("/readyz")).status_code == 200

    await eventually(ready, within=60)
    await put(watched, "before", 1)
    await watched.start_watching()
    await watched.worker.stop()
    await watched.api.stop()
    watched.worker, watched.api = processes
    await watched.start(*processes)
    load = Load(watched)

    async def fail_over_twice() -> None:
        await load.more(10, within=180)
        await watched.kill_primary()
        await load.more(10, within=180)
        await watched.start_replica()
        await watched.is_whole()
        await load.more(10, within=180)
        await watched.order_failover()
        await load.more(10, within=180)

    await load.run(fail_over_twice)
    await recovered(watched, within=180)
    stored: dict[str, State] = {i: document["n"] for i, document in (await in_mongodb(watched)).items()}
    wrong = {
        i: (stored.get(i), key) for i, key in load.keys.items() if stored.get(i) not in (key.acknowledged, *key.tried)
    }
    assert wrong == {}
    assert stored["before"] == 1
    assert await in_redis(watched) == await in_mongodb(watched)
    [report] = await commands.reports(watched, "audit --mapping notes")
    assert report["left"] == 0
