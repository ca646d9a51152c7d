"""Documents that are renamed to what MongoDB can't hold: they go back to where they were, as they were then."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from tests.support.engines import KindStack
from tests.support.stack import eventually

TOO_LONG = "x" * 1100
Documents = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["redis-stack-7.4-gears2", "redis-8.2-function"])
async def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KindStack]:
    """A stack whose `notes` have a slug each of their own if their ids begin with z."""
    stack = KindStack(tmp_path_factory.mktemp("moves"), request.param, WT_LEASE_TTL="1")
    try:
        await stack.start(stack.redis, stack.mongo)
        await stack.mongo_client.test.notes.create_index(
            "slug", unique=True, partialFilterExpression={"id": {"$gt": "z"}}
        )
        await stack.start(stack.worker, stack.api)
        yield stack
    finally:
        await stack.close()


async def in_redis(stack: KindStack, new_id: str) -> Documents:
    keys = [key.decode() async for key in stack.redis_client.scan_iter(f"notes:*{new_id}*")]
    ids = [key.removeprefix("notes:") for key in keys]
    return {i: {"id": i} | await stack.get(i, "notes") for i in ids}


async def in_mongodb(stack: KindStack, new_id: str) -> Documents:
    found = await stack.mongo_client.test.notes.find({"id": {"$regex": new_id}}).to_list()
    return {one["id"]: {k: v for k, v in one.items() if k not in ("_id", "_sync")} for one in found}


async def both_hold(stack: KindStack, new_id: str, **expected: Documents) -> None:
    """Both sides hold these documents, by what their ids begin with."""
    documents = {f"{name}{new_id}": {"id": f"{name}{new_id}"} | fields for name, fields in expected.items()}

    async def arrived() -> bool:
        await stack.drained("notes")
        return await in_redis(stack, new_id) == documents == await in_mongodb(stack, new_id)

    try:
        await eventually(arrived, within=20)
    except AssertionError:
        assert await in_redis(stack, new_id) == documents
        assert await in_mongodb(stack, new_id) == documents
        raise


@asynccontextmanager
async def backlog(stack: KindStack) -> AsyncIterator[None]:
    """What is written meanwhile waits to be committed, all in one batch."""
    stack.worker.freeze()
    try:
        # The read that is under way ends with this.
        await stack.client.put("/notes/first", json={}, headers={"Prefer": "respond-async"})
        yield
    finally:
        stack.worker.thaw()


async def put(stack: KindStack, document_id: str, **fields: Any) -> None:
    assert (await stack.client.put(f"/notes/{document_id}", json=fields)).is_success


async def rename(stack: KindStack, *ids: str) -> None:
    """From each of these to the next one."""
    for old, new in pairwise(ids):
        await stack.redis_client.rename(f"notes:{old}", f"notes:{new}")


@pytest.mark.parametrize("names", [(TOO_LONG, ""), ("", TOO_LONG), (TOO_LONG, "b", "")], ids=["2", "2 others", "3"])
async def test_two_refused_moves(stack: KindStack, new_id: str, names: tuple[str, ...]) -> None:
    await put(stack, f"a{new_id}", n=1)
    for _ in range(2):  # the second time Redis remembers that the names were deleted
        async with backlog(stack):
            await rename(stack, f"a{new_id}", *(name and name + new_id for name in names))
        await both_hold(stack, new_id, a={"n": 1})
        assert not await stack.redis_client.exists("notes:")


async def test_a_document_comes_back_as_it_was_when_it_was_renamed(stack: KindStack, new_id: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    async with backlog(stack):
        await stack.set(f"a{new_id}", {"n": 2}, "notes")
        await rename(stack, f"a{new_id}", f"b{new_id}", TOO_LONG + new_id)
    await both_hold(stack, new_id, a={"n": 2})


@pytest.mark.parametrize("new_name", [TOO_LONG, "z"], ids=["no id", "taken slug"])
async def test_a_put_that_waits_is_committed_where_it_was_made(stack: KindStack, new_id: str, new_name: str) -> None:
    await put(stack, f"zz{new_id}", slug=new_id)
    async with backlog(stack):
        answer = await stack.client.put(f"/notes/a{new_id}", json={"slug": new_id}, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202
        await rename(stack, f"a{new_id}", new_name + new_id)
    await both_hold(stack, new_id, a={"slug": new_id}, zz={"slug": new_id})
    if not stack.kind.gears:
        return  # the put may be committed, and found to be gone, before the rename is learnt of
    standing = await stack.client.get(f"/sync/{answer.headers['Sync-Token']}", params={"mapping": "notes"})
    assert standing.json()["mappings"] == {"notes": "committed"}
    [letter] = await stack.mongo_client.test.sync_dead_letters.find({"key": {"$regex": new_id}}).to_list()
    assert letter["key"] == f"notes:{new_name}{new_id}"


async def test_what_a_document_replaced_on_its_way_comes_back_too(stack: KindStack, new_id: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    await put(stack, f"b{new_id}", n=2)
    async with backlog(stack):
        await rename(stack, f"a{new_id}", f"b{new_id}", TOO_LONG + new_id)
    await both_hold(stack, new_id, a={"n": 1}, b={"n": 2})


async def test_what_a_document_would_have_replaced_comes_back_too(stack: KindStack, new_id: str) -> None:
    await put(stack, f"z{new_id}", slug=new_id)
    await put(stack, f"zz{new_id}", slug=f"{new_id}z")
    await put(stack, f"a{new_id}", n=1)
    async with backlog(stack):
        await stack.set(f"a{new_id}", {"slug": new_id}, "notes")
        await rename(stack, f"a{new_id}", f"zz{new_id}")
    await both_hold(stack, new_id, a={"slug": new_id}, z={"slug": new_id}, zz={"slug": f"{new_id}z"})


async def test_what_mongodb_cannot_hold_comes_back_as_what_it_holds(stack: KindStack, new_id: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    async with backlog(stack):
        await stack.set(f"a{new_id}", {"$bad": 1}, "notes")
        await rename(stack, f"a{new_id}", TOO_LONG + new_id)
    await both_hold(stack, new_id, a={"n": 1})


async def test_what_was_written_after_the_move_stays(stack: KindStack, new_id: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    async with backlog(stack):
        await rename(stack, f"a{new_id}", TOO_LONG + new_id)
        await stack.set(f"a{new_id}", {"n": 2}, "notes")
    await both_hold(stack, new_id, a={"n": 2})


async def test_what_was_deleted_after_the_move_stays_deleted(stack: KindStack, new_id: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    async with backlog(stack):
        await rename(stack, f"a{new_id}", TOO_LONG + new_id)
        await stack.redis_client.delete(f"notes:{TOO_LONG}{new_id}")
    await both_hold(stack, new_id)


@pytest.mark.parametrize("prefix", ["todos", "unmapped"])
async def test_what_came_from_outside_the_mapping_is_kept_whole(stack: KindStack, new_id: str, prefix: str) -> None:
    document, target = {"text": "x" * 1_500_000}, f"notes:{TOO_LONG}{new_id}"
    await stack.set(new_id, document, prefix)
    await stack.redis_client.rename(f"{prefix}:{new_id}", target)
    await both_hold(stack, new_id)
    [letter] = await stack.mongo_client.test.sync_dead_letters.find({"key": target}).to_list()
    assert json.loads(letter["document"]) == document
    assert letter["reason"].endswith("from outside the mapping, and is kept here alone")


@pytest.mark.parametrize("point", ["moved back", "dead letters kept", "refusals recorded", "fenced off", "rolled back"])
async def test_a_committer_that_dies_amid_it(stack: KindStack, new_id: str, point: str) -> None:
    await put(stack, f"a{new_id}", n=1)
    await put(stack, f"b{new_id}", n=2)
    await stack.worker.stop()
    try:
        dying = stack.worker.armed(FAILPOINTS=f"kill {point}")
        await dying.start()
        await stack.set(f"a{new_id}", {"n": 3}, "notes")
        async with stack.redis_client.pipeline(transaction=True) as pipeline:
            pipeline.rename(f"notes:a{new_id}", f"notes:b{new_id}")
            pipeline.rename(f"notes:b{new_id}", f"notes:{TOO_LONG}{new_id}")
            await pipeline.execute()
        await dying.ends()
    finally:
        await stack.worker.start()
    await both_hold(stack, new_id, a={"n": 3}, b={"n": 2})
