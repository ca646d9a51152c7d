"""Versions that somebody else wrote into MongoDB: they are not believed, and use up no ids of the sync stream."""

import time
from typing import Any

import pytest
from bson import Int64

from gears.contract.redis_names import Names
from gears.contract.version import version_of
from gears.progress.backlog import last_entry
from tests.audit.test_audit import audit, counts
from tests.support.stack import Stack, eventually

FOREIGN = {
    "the highest": 2**63 - 1,
    "a hundred and fifty years ahead": 2**63 - 2**61,
    "negative": -5,
    "some terms ahead": version_of(2_000_000, 7),
}
PATIENT = {"WT_MONGO_TIMEOUT": "30"}  # the machine may be busy


async def stored_by_somebody(stack: Stack, document_id: str, version: Int64) -> None:
    state = {"$set": {"n": 9, "_sync": {"v": version}}}
    await stack.todos.update_one({"id": document_id}, state, upsert=True)


async def stream_is_near_the_clock(stack: Stack) -> None:
    newest = await last_entry(stack.redis_client, Names("todos"))
    assert abs(newest.ms / 1000 - time.time()) < 300


async def both_sides_hold(stack: Stack, document_id: str, document: dict[str, Any] | None) -> None:
    await stack.drained()
    found = await stack.stored(document_id)
    assert found == (None if document is None else {"id": document_id} | document)
    assert await stack.get(document_id) == (None if document is None else {"id": document_id} | document)


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_carries_an_impossible_version_is_nobodys_newer_state(own_stack: Stack, name: str) -> None:
    worker = own_stack.only_committing()
    await own_stack.start(own_stack.redis, own_stack.mongo, worker, own_stack.api)
    try:
        version, api = Int64(FOREIGN[name]), own_stack.client
        await own_stack.todos.create_index("slug", unique=True, partialFilterExpression={"slug": {"$exists": True}})
        for document_id in ("differs", "equal", "written", "deleted", "refused"):
            await own_stack.set(document_id, {"n": 1})
        await own_stack.set("holder", {"slug": "taken"})
        await own_stack.drained()
        for document_id in ("differs", "written", "deleted", "refused", "cold"):
            await stored_by_somebody(own_stack, document_id, version)
        await own_stack.todos.update_one({"id": "equal"}, {"$set": {"_sync.v": version}})

        assert (await api.put("/todos/written", json={"name": "2"})).status_code == 200
        await both_sides_hold(own_stack, "written", {"id": "written", "name": "2"})
        assert (await api.delete("/todos/deleted")).status_code == 204
        await both_sides_hold(own_stack, "deleted", None)
        refused = await api.put("/todos/refused", json={"name": "3", "slug": "taken"})
        assert refused.json()["type"] == "urn:writethrough:problem:refused"
        assert (await api.get("/todos/cold")).json() == {"id": "cold", "n": 9}
        await own_stack.drained()

        code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos", **PATIENT)
        assert (code, counts(report), report["repaired"]) == (0, {"stale": 1}, 1)
        await both_sides_hold(own_stack, "differs", {"n": 1})
        await own_stack.set("equal", {"n": 2})
        await both_sides_hold(own_stack, "equal", {"n": 2})
        await stream_is_near_the_clock(own_stack)
    finally:
        await worker.kill()


async def test_a_rewind_does_not_follow_an_impossible_version(own_stack: Stack) -> None:
    await own_stack.start()
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    await stored_by_somebody(own_stack, "b", Int64(FOREIGN["the highest"]))
    await own_stack.redis_client.flushall()

    async def given_back() -> bool:
        return [await own_stack.get(document_id) for document_id in "ab"] == [{"id": "a", "n": 1}, {"id": "b", "n": 9}]

    await eventually(given_back)
    await own_stack.set("b", {"n": 2})
    await both_sides_hold(own_stack, "b", {"n": 2})
    await stream_is_near_the_clock(own_stack)


async def test_an_impossible_tombstone_moves_no_stream(own_stack: Stack) -> None:
    worker = own_stack.only_committing()
    await own_stack.start(own_stack.redis, own_stack.mongo, worker)
    try:
        await own_stack.set("a", {"n": 1})
        await own_stack.drained()
        await own_stack.todos.delete_one({"id": "a"})
        tombstone = {"_id": "todos:a", "mapping": "todos", "v": Int64(FOREIGN["the highest"])}
        await own_stack.mongo_client.test.sync_tombstones.insert_one(tombstone)
        _, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos", **PATIENT)
        assert counts(report) == {"missing": 1}
        await stream_is_near_the_clock(own_stack)
    finally:
        await worker.kill()
