"""Redis was started with an older state, and no worker has looked yet what it has forgotten."""

import shutil

import pytest
import pytest_asyncio

from tests.loss.test_rewind import lose_everything_since, put, recovered
from tests.support.stack import Stack, eventually


@pytest_asyncio.fixture(loop_scope="session")
async def forgetful(own_stack: Stack) -> Stack:
    """A stack whose Redis has forgotten the latest writes to `changed`, `deleted` and `made`; no worker runs."""
    await own_stack.start()
    for document_id in ("same", "changed", "deleted", "written since"):
        await put(own_stack, document_id, 1)
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    for document_id in ("changed", "made", "written since"):
        await put(own_stack, document_id, 2)
    assert (await own_stack.client.delete("/notes/deleted")).status_code == 204
    await own_stack.worker.kill()
    await lose_everything_since(own_stack, "snapshot")
    return own_stack


async def test_what_waited_when_redis_was_saved_and_was_overtaken_is_not_newer(own_stack: Stack) -> None:
    await own_stack.start()
    for document_id in ("changed", "deleted", "back"):
        await put(own_stack, document_id, 1)
    own_stack.mongo.freeze()
    later = {"Prefer": "respond-async"}
    for document_id in ("changed", "deleted"):
        answer = await own_stack.client.put(f"/notes/{document_id}", json={"n": 2}, headers=later)
        assert answer.status_code == 202
    await own_stack.redis_client.unlink("notes:back")
    shutil.copytree(own_stack.folder / "redis", own_stack.folder / "snapshot")
    own_stack.mongo.thaw()
    await own_stack.drained("notes")
    for document_id in ("changed", "back"):
        await put(own_stack, document_id, 3)
    assert (await own_stack.client.delete("/notes/deleted", headers={"Prefer": "wait=20"})).status_code == 204
    await own_stack.worker.kill()
    await lose_everything_since(own_stack, "snapshot")
    assert await read(own_stack, "changed") == 3
    assert await read(own_stack, "deleted") is None
    assert await read(own_stack, "back") == 3


async def read(stack: Stack, document_id: str) -> int | None:
    """What the API says of it; None when there is none."""

    async def answers() -> bool:
        return (await stack.client.get("/notes/same")).status_code in (200, 404)  # it has noticed that Redis is back

    await eventually(answers)
    answer = await stack.client.get(f"/notes/{document_id}")
    assert answer.status_code in (200, 404), answer.text
    return int(answer.json()["n"]) if answer.status_code == 200 else None


async def test_a_read_gives_what_was_acknowledged(forgetful: Stack) -> None:
    assert await read(forgetful, "changed") == 2
    assert await read(forgetful, "deleted") is None
    assert await read(forgetful, "made") == 2
    assert await read(forgetful, "same") == 1


async def test_what_was_written_since_stays(forgetful: Stack) -> None:
    await forgetful.set("written since", {"n": 3}, "notes")
    assert await read(forgetful, "written since") == 3
    await forgetful.worker.start()
    await recovered(forgetful)
    assert await read(forgetful, "written since") == 3
    assert await read(forgetful, "changed") == 2


@pytest.mark.parametrize("away", ["killed", "frozen"])
async def test_where_nobody_knows_better_a_read_gives_what_redis_holds(forgetful: Stack, away: str) -> None:
    await (forgetful.mongo.kill() if away == "killed" else frozen(forgetful))
    assert await read(forgetful, "same") == 1
    assert await read(forgetful, "changed") == 1
    at_once = [(await forgetful.client.get("/notes/same")).elapsed.total_seconds() for _ in range(5)]
    assert sorted(at_once)[2] < 0.5, "it isn't asked each time"


async def test_once_a_worker_has_looked_a_read_asks_redis_alone(forgetful: Stack) -> None:
    await forgetful.worker.start()
    await recovered(forgetful)

    async def at_once() -> bool:
        return bool((await forgetful.client.get("/notes/changed")).elapsed.total_seconds() < 1)

    await forgetful.mongo.kill()
    await eventually(at_once)
    assert await read(forgetful, "changed") == 2


async def frozen(stack: Stack) -> None:
    stack.mongo.freeze()
