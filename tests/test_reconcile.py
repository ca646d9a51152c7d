"""The sidecar sweeps when something may have been missed, and repairs what it finds."""

from collections.abc import Awaitable, Callable
from typing import Any

from gears.backlog import last_entry
from gears.engines import open_engine
from tests.stack import Stack, eventually


async def plant(stack: Stack, document_id: str, document: bytes) -> None:
    """Change Redis without the capture noticing."""
    engine = await open_engine(stack.redis_client, stack.settings.mappings[0])
    since = await last_entry(stack.redis_client, engine.names)
    assert await engine.restore(document_id, document, since=since)


async def sweeps(stack: Stack) -> list[dict[str, Any]]:
    """The reports of all sweeps of the mapping `todos`."""
    return await stack.mongo_client.test.sync_audits.find({"mapping": "todos"}).to_list()


def stored(stack: Stack, document_id: str) -> Callable[[], Awaitable[Any]]:
    return lambda: stack.stored(document_id)


async def swept_at_start(stack: Stack) -> None:
    await stack.start(stack.redis, stack.mongo, stack.worker)
    await eventually(lambda: sweeps(stack))


async def test_a_sidecar_sweeps_at_start_and_on_demand(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await own_stack.set("early", {"n": 1})  # before there was any recipe
    await own_stack.worker.start()
    assert await eventually(stored(own_stack, "early")) == {"id": "early", "n": 1}
    await eventually(lambda: sweeps(own_stack))
    await plant(own_stack, "late", b'{"n":1}')
    await own_stack.redis_client.set("sync:{todos}:sweep", "asked for by hand")
    assert await eventually(stored(own_stack, "late")) == {"id": "late", "n": 1}


async def test_writes_made_while_the_recipe_was_missing_are_backfilled(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    async with own_stack.redis_client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("TFUNCTION", "DELETE", "writethrough_todos")
        pipeline.execute_command("JSON.SET", "todos:a", "$", '{"n":1}')
        await pipeline.execute()
    assert await eventually(stored(own_stack, "a")) == {"id": "a", "n": 1}

    async def said() -> bool:
        return '"the recipe was installed: ' in own_stack.worker.log.read_text()

    await eventually(said)


async def test_a_sweep_follows_when_commits_were_held_up(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await own_stack.mongo.kill()
    await own_stack.set("captured", {"n": 1})
    await plant(own_stack, "missed", b'{"n":1}')

    async def retrying() -> bool:
        return await own_stack.redis_client.hget("sync:{todos}:worker", "state") == b"retrying"

    await eventually(retrying)
    await own_stack.mongo.start()
    assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}
    lines = own_stack.worker.log.read_text().splitlines()
    assert sum("reconciling stopped" in line and '"todos"' in line for line in lines) <= 1, "not a flood"


async def test_a_sweep_follows_when_redis_was_restarted(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await plant(own_stack, "missed", b'{"n":1}')
    await own_stack.redis.stop()
    await own_stack.redis.start()
    assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}


async def test_one_sidecar_sweeps_and_another_takes_over(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    standby = own_stack.another_worker("standby")
    await standby.start()
    try:
        assert "swept" not in standby.log.read_text()
        await own_stack.worker.kill()
        await plant(own_stack, "missed", b'{"n":1}')
        assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}
    finally:
        await standby.kill()
