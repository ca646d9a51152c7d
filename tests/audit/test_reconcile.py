"""The sidecar sweeps when something may have been missed, and repairs what it finds."""

from collections.abc import Awaitable, Callable
from typing import Any

from bson import Int64

from gears.progress.reconciler_state import read_reconciler
from tests.support.stack import Stack, eventually, far_ahead


async def commit(stack: Stack, document_id: str) -> None:
    """A document that is on both sides, compared since it was written."""
    await stack.set(document_id, {"n": 1})
    await eventually(stored(stack, document_id))
    assert await eventually(lambda: settled(stack))


async def settled(stack: Stack) -> bool:
    """Whether the reconciler has nothing to recheck."""
    said = await read_reconciler(stack.redis_client, stack.settings.mappings[0])
    return said is not None and said.rechecked > 0 and said.noted == 0


async def drift(stack: Stack, document_id: str) -> None:
    """Something that Redis doesn't tell, so that only a sweep can find it."""
    await stack.todos.delete_one({"id": document_id})


async def sweeps(stack: Stack) -> list[dict[str, Any]]:
    """The reports of all sweeps of the mapping `todos`."""
    return await stack.mongo_client.test.sync_audits.find({"mapping": "todos"}).sort("started_at", 1).to_list()


def stored(stack: Stack, document_id: str) -> Callable[[], Awaitable[Any]]:
    return lambda: stack.stored(document_id)


async def swept_because(stack: Stack, reason: str) -> bool:
    """Whether the latest sweep was made for this reason, or one that begins like it."""
    reports = await sweeps(stack)
    return bool(reports) and reports[-1]["because"].startswith(reason)


async def swept_at_start(stack: Stack) -> None:
    await stack.start(stack.redis, stack.mongo, stack.worker)
    await eventually(lambda: sweeps(stack))


async def test_a_sidecar_sweeps_at_start_and_on_demand(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await own_stack.set("early", {"n": 1})  # before there was any recipe
    await own_stack.worker.start()
    assert await eventually(stored(own_stack, "early")) == {"id": "early", "n": 1}
    await eventually(lambda: sweeps(own_stack))
    await drift(own_stack, "early")
    await own_stack.redis_client.set("sync:{todos}:sweep", "asked for by hand")
    assert await eventually(stored(own_stack, "early")) == {"id": "early", "n": 1}
    assert await eventually(lambda: swept_because(own_stack, "asked for by hand"))


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
    await commit(own_stack, "missed")
    await drift(own_stack, "missed")
    await own_stack.mongo.kill()
    await own_stack.set("captured", {"n": 1})

    async def retrying() -> bool:
        return await own_stack.redis_client.hget("sync:{todos}:worker", "state") == b"retrying"

    await eventually(retrying)
    await own_stack.mongo.start()
    assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}
    lines = own_stack.worker.log.read_text().splitlines()
    assert sum("reconciling stopped" in line and '"todos"' in line for line in lines) <= 1, "not a flood"


async def resurrect(stack: Stack) -> None:
    """An insert that arrives after its delete, from a committer that died, so that nobody looks for its tombstone."""
    await commit(stack, "late")
    late = await stack.todos.find_one({"id": "late"}, {"_id": 0})
    await stack.redis_client.delete("todos:late")
    await stack.drained()
    await eventually(lambda: settled(stack))
    await stack.todos.insert_one(late)


async def deleted_again(stack: Stack) -> None:
    async def probe() -> bool:
        return await stack.stored("late") is None

    await eventually(probe, within=20)


async def test_a_late_insert_is_removed_when_commits_were_held_up(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await resurrect(own_stack)
    own_stack.mongo.freeze()
    await own_stack.set("other", {"n": 1})

    async def retrying() -> bool:
        return await own_stack.redis_client.hget("sync:{todos}:worker", "state") == b"retrying"

    await eventually(retrying)
    own_stack.mongo.thaw()
    await deleted_again(own_stack)


async def test_a_late_insert_is_removed_after_a_takeover(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    committers = [own_stack.only_committing("one"), own_stack.only_committing("other")]
    reconciler = own_stack.only_reconciling()
    try:
        for process in (*committers, reconciler):
            await process.start()
        await eventually(lambda: sweeps(own_stack))
        await resurrect(own_stack)
        await committers[0].kill()
        await deleted_again(own_stack)
        assert await eventually(lambda: swept_because(own_stack, "commits were held up, Redis was"))
    finally:
        for process in (*committers, reconciler):
            if process.running:
                await process.kill()


async def test_a_document_from_elsewhere_with_a_version_far_ahead_shadows_its_key_no_longer(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    version = Int64(await far_ahead(own_stack, "todos"))
    await own_stack.todos.insert_one({"id": "a", "n": 9, "_sync": {"v": version}})
    for n in (1, 2):
        await own_stack.set("a", {"n": n})
        await own_stack.drained()
        assert await own_stack.stored("a") == {"id": "a", "n": n}
    assert await own_stack.get("a") == {"id": "a", "n": 2}


async def test_what_was_written_while_the_worker_was_down_and_the_recipe_missing_is_found(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await commit(own_stack, "changed")
    await own_stack.worker.kill()
    redis = own_stack.redis_client
    for n in range(300):
        await own_stack.set(f"captured-{n}", {"n": n})
    await redis.execute_command("TFUNCTION", "DELETE", "writethrough_todos")
    for n in range(300):
        await own_stack.set(f"missed-{n}", {"n": n})
    await own_stack.set("changed", {"n": 2})
    await own_stack.worker.start()

    async def caught_up() -> bool:
        changed = await own_stack.stored("changed") == {"id": "changed", "n": 2}
        return changed and bool(await own_stack.todos.count_documents({}) == 601)

    await eventually(caught_up, within=30)


async def test_a_sweep_follows_when_redis_was_restarted(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await commit(own_stack, "missed")
    await drift(own_stack, "missed")
    await own_stack.redis.stop()
    await own_stack.redis.start()
    assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}


async def test_one_sidecar_sweeps_and_another_takes_over(own_stack: Stack) -> None:
    await swept_at_start(own_stack)
    await commit(own_stack, "missed")
    standby = own_stack.another_worker("standby")
    await standby.start()
    try:
        assert "swept" not in standby.log.read_text()
        await own_stack.worker.kill()
        await drift(own_stack, "missed")
        assert await eventually(stored(own_stack, "missed"), within=20) == {"id": "missed", "n": 1}
    finally:
        await standby.kill()
