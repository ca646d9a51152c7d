"""Moving the sync stream on: what is noted as skipped is what no write ever got."""

from typing import Any

import anyio
import pytest

from gears.backlog import last_entry
from gears.redis import connect
from gears.stream import EntryId, Names
from tests.stack import Stack
from worker.prove import read_skipped
from worker.room import make_room


@pytest.mark.parametrize("ahead", [1_000, 3_600_000])
async def test_no_write_gets_a_version_that_is_noted_as_skipped(own_stack: Stack, ahead: int) -> None:
    await own_stack.redis.start()
    names = Names("todos")
    given: list[EntryId] = []

    async def write() -> None:
        while True:
            reply = await own_stack.redis_client.xadd(names.stream, {"k": "todos:a", "e": "json.set"})
            given.append(EntryId.parse(reply))

    async with connect(own_stack.redis_url, timeout=5) as redis, anyio.create_task_group() as tasks:
        await redis.xadd(names.stream, {"e": "first"})
        tasks.start_soon(write)
        for _ in range(50):
            newest = await last_entry(redis, names)
            version = EntryId(newest.ms + ahead, 7).version
            for _ in range(2):  # the second time there is room
                await make_room(redis, names, version)
                assert (await last_entry(redis, names)).version > version
        tasks.cancel_scope.cancel()
    noted: Any = await own_stack.redis_client.get(names.skipped)
    skipped = read_skipped(noted)
    assert len(skipped) == 50
    versions = [entry_id.version for entry_id in given]
    assert [v for v in versions if any(low < v <= high for low, high in skipped)] == []
    assert all(low < high for low, high in skipped)
