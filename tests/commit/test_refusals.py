"""Promise 7: a refusal changes nothing, and is kept where somebody finds it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pymongo
import pytest
import pytest_asyncio

from gears.contract.changes import Remove, Upsert
from gears.contract.version import version_of
from gears.contract.write_tokens import Token
from gears.engines import open_engine
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_mongo.unique_indexes.write_order import Changes
from tests.support.engines import uncaptured
from tests.support.stack import Stack, encoded, eventually, logged


async def dead_letters(stack: Stack, document_id: str) -> list[dict[str, Any]]:
    found = stack.mongo_client.test.sync_dead_letters.find({"key": f"todos:{document_id}"})
    return await found.to_list()


async def test_a_refused_document_is_rolled_back_and_kept_as_a_dead_letter(stack: Stack, new_id: str) -> None:
    await stack.set(new_id, {"good": 1})
    await stack.drained()
    await stack.set(new_id, {"n": 2**63})
    await eventually(lambda: _rolled_back(stack, new_id, {"id": new_id, "good": 1}))
    assert await stack.stored(new_id) == {"id": new_id, "good": 1}
    [letter] = await dead_letters(stack, new_id)
    assert letter["document"] == b'{"n":9223372036854775808}'
    assert "'n'" in letter["reason"]


async def test_a_refused_new_document_leaves_nothing_behind(stack: Stack, new_id: str) -> None:
    await stack.set(new_id, [1, 2])
    await eventually(lambda: _rolled_back(stack, new_id, None))
    assert await stack.stored(new_id) is None
    assert len(await dead_letters(stack, new_id)) == 1


@pytest.mark.parametrize("key", [b"todos:\xff\xfe", b"todos:" + b"y" * 1025, b"todos:"])
async def test_a_key_that_mongodb_cannot_name_is_taken_back(key: bytes, stack: Stack) -> None:
    await stack.redis_client.execute_command("JSON.SET", key, "$", "{}")

    async def probe() -> bool:
        return not await stack.redis_client.exists(key)

    await eventually(probe)


async def test_a_unique_index_of_the_users_refuses_only_the_offender(stack: Stack, new_id: str) -> None:
    await stack.mongo_client.test.notes.create_index(
        "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
    )
    await stack.set(f"{new_id}-1", {"slug": new_id}, prefix="notes")
    await stack.drained("notes")
    await stack.set(f"{new_id}-2", {"slug": new_id}, prefix="notes")
    await stack.set(f"{new_id}-3", {"slug": new_id + "3"}, prefix="notes")
    await stack.drained("notes")
    assert await stack.stored(f"{new_id}-1", "notes") is not None
    assert await stack.stored(f"{new_id}-2", "notes") is None
    assert await stack.stored(f"{new_id}-3", "notes") is not None
    assert await stack.get(f"{new_id}-2", prefix="notes") is None


async def test_schema_validation_refuses_only_the_offender(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    try:
        await own_stack.mongo_client.test.create_collection(
            "todos", validator={"$jsonSchema": {"properties": {"n": {"bsonType": "string"}}}}
        )
    except pymongo.errors.OperationFailure as error:
        pytest.skip(f"this server has no schema validation: {error}")
    await own_stack.worker.start()
    await own_stack.set("bad", {"n": 1})
    await own_stack.set("good", {"n": "1"})
    await own_stack.drained()
    assert await own_stack.stored("good") == {"id": "good", "n": "1"}
    assert await own_stack.stored("bad") is None
    assert await own_stack.get("bad") is None


async def test_a_write_after_the_refused_one_is_not_rolled_back(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.worker.stop()
    await own_stack.set("a", [1])
    await own_stack.set("a", {"fixed": True})
    await own_stack.worker.start()
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "fixed": True}
    assert await own_stack.get("a") == {"id": "a", "fixed": True}


async def test_an_evicted_write_is_reported_not_taken_for_a_delete(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    await own_stack.worker.stop()
    await own_stack.set("a", {"n": 2})
    await uncaptured(await open_engine(own_stack.redis_client, own_stack.settings.mappings[0]), "a", None)
    await own_stack.worker.start()
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}
    [letter] = await dead_letters(own_stack, "a")
    assert "evicted" in letter["reason"]


async def test_a_write_between_a_batch_and_the_refused_one_is_refused_too(one_by_one: Stack) -> None:
    """The state that the first batch reads is the refused one; rolling back then would undo the write in between."""
    await one_by_one.start()
    await one_by_one.client.put("/notes/a", json={"n": 1})
    await one_by_one.worker.stop()
    await one_by_one.set("a", {"n": 2}, prefix="notes")
    token = await _write(one_by_one, {"n": 3})
    await one_by_one.set("a", {"n": 2**63}, prefix="notes")
    await one_by_one.worker.start()
    await one_by_one.drained("notes")
    assert await one_by_one.stored("a", "notes") == {"id": "a", "n": 1}
    assert await one_by_one.get("a", "notes") == {"id": "a", "n": 1}
    assert await _standing(one_by_one, token) == "refused"


async def test_a_write_after_a_stale_read_through_is_kept(one_by_one: Stack) -> None:
    await one_by_one.start()
    await one_by_one.client.put("/notes/a", json={"n": 1})
    stale = (await one_by_one.mongo_client.test.notes.find_one({"id": "a"}) or {})["_sync"]["v"]
    await one_by_one.client.put("/notes/a", json={"n": 2})
    await one_by_one.redis_client.pexpire("notes:a", 1)
    await eventually(lambda: _absent(one_by_one, "notes:a"))
    await one_by_one.worker.stop()
    seconds, _ = await one_by_one.redis_client.time()
    await one_by_one.redis_client.execute_command(
        "TFCALL", "writethrough_notes.fill", 1, "notes:a", '{"n":1}', stale, seconds * 1000
    )
    token = await _write(one_by_one, {"n": 3})
    await one_by_one.worker.start()
    await one_by_one.drained("notes")
    assert await _standing(one_by_one, token) == "committed"
    assert await one_by_one.stored("a", "notes") == {"id": "a", "n": 3}


@pytest.mark.parametrize("document", [{"n": 2}, None])
async def test_what_was_committed_before_the_refused_write_is_not_called_refused(
    document: dict[str, int] | None, own_stack: Stack
) -> None:
    """As if a committer had been killed between the bulk write and the acknowledgement."""
    await own_stack.start()
    await own_stack.client.put("/notes/a", json={"n": 1})
    await own_stack.worker.stop()
    token = await _write(own_stack, document)
    await _commit(own_stack, await _begin(own_stack), Token.parse(token), document)
    await own_stack.set("a", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start()
    await own_stack.drained("notes")
    assert await _standing(own_stack, token) == "committed"
    expected = None if document is None else {"id": "a", "n": 2}
    assert await own_stack.stored("a", "notes") == expected
    assert await own_stack.get("a", "notes") == expected


@pytest.mark.parametrize("before", [{"id": "a", "n": 1}, None])
async def test_what_was_refused_does_not_come_later(before: dict[str, Any] | None, own_stack: Stack) -> None:
    """A committer that was held up had taken it before it was replaced by a state that MongoDB can't hold."""
    await own_stack.start()
    if before is not None:
        await own_stack.client.put("/notes/a", json=before)
    await own_stack.worker.stop()
    token, held_up = await _write(own_stack, {"n": 2}), await _begin(own_stack)
    await own_stack.set("a", {"n": 2**63}, prefix="notes")
    await own_stack.worker.start()
    await own_stack.drained("notes")
    assert await _standing(own_stack, token) == "refused"
    await _commit(own_stack, held_up, Token.parse(token), {"n": 2})
    assert await own_stack.stored("a", "notes") == before
    assert await own_stack.get("a", "notes") == before
    answer = await own_stack.client.put("/notes/a", json={"n": 3})
    assert answer.is_success
    assert await own_stack.stored("a", "notes") == {"id": "a", "n": 3}


@pytest_asyncio.fixture(loop_scope="session")
async def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that commits one entry at a time."""
    stack = Stack(tmp_path_factory.mktemp("one"), WT_LEASE_TTL="1.5", WT_BATCH_SIZE="1")
    try:
        yield stack
    finally:
        await stack.close()


async def _begin(stack: Stack) -> int:
    """As a committer does it; returns the version of its first batch."""
    client = open_client(stack.mongo_uri, timeout=5)
    try:
        return version_of(await Store(client, stack.settings.mappings[1]).log.begin_term("another"), 1)
    finally:
        client.close()


async def _commit(stack: Stack, version: int, token: Token, document: dict[str, int] | None) -> None:
    """As a committer does it in MongoDB."""
    client = open_client(stack.mongo_uri, timeout=5)
    mapping = stack.settings.mappings[1]
    store = Store(client, mapping)
    change = Upsert("a", version, encoded(mapping, "a", document, version)) if document else Remove("a", version)
    await store.writer.commit(Changes.of([change]), logged(version, token))
    client.close()


async def _write(stack: Stack, document: dict[str, int] | None) -> str:
    """Write the document `a`, or delete it, without waiting; returns the token."""
    method = "DELETE" if document is None else "PUT"
    answer = await stack.client.request(method, "/notes/a", json=document, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return answer.headers["Sync-Token"]


async def _standing(stack: Stack, token: str) -> str:
    answer = await stack.client.get(f"/sync/{token}", params={"mapping": "notes"})
    return str(answer.json()["mappings"]["notes"])


async def _absent(stack: Stack, key: str) -> bool:
    return not await stack.redis_client.exists(key)


async def _rolled_back(stack: Stack, document_id: str, expected: object) -> bool:
    document = await stack.get(document_id)
    return bool(document == expected) and await stack.redis_client.xlen("sync:{todos}") == 0


@pytest.mark.parametrize(
    "unreadable",
    [
        {"at": {"$date": {"$numberLong": str(2**62)}}},
        {"$ref": {"a": 1}},
        {"deep": [{"$bson": {"base64": "AgAAAP8A", "type": "02"}}]},
    ],
    ids=["a date far ahead", "a reference to nothing", "a string that is no UTF-8"],
)
async def test_a_document_that_the_server_cannot_read_stops_no_other(
    own_stack: Stack, unreadable: dict[str, Any]
) -> None:
    """The embedded server refuses the whole command then; another one may take it."""
    await own_stack.start()
    await own_stack.worker.stop()
    for n in range(20):
        await own_stack.set(f"{n}", {"id": f"{n}", "n": n}, prefix="notes")
        if n == 10:
            await own_stack.set("unreadable", {"id": "unreadable", "x": unreadable}, prefix="notes")
    await own_stack.worker.start()
    await own_stack.drained("notes", within=30)
    assert await own_stack.mongo_client.test.notes.count_documents({"n": {"$gte": 0}}) == 20
    answer = await own_stack.client.put("/notes/unreadable", json={"x": unreadable})
    assert answer.status_code in (200, 201, 422)
    cached, page = await own_stack.get("unreadable", "notes"), (await own_stack.client.get("/notes")).json()
    assert [each["id"] for each in page["items"]].count("unreadable") == (cached is not None)
    assert (cached is not None) == answer.is_success


async def test_no_value_of_a_refused_document_is_told_to_anybody(
    stack: Stack, api: httpx.AsyncClient, new_id: str
) -> None:
    """Neither in the answer, nor in the reason of the dead letter, nor in a log; the dead letter keeps the document."""
    await stack.mongo_client.test.notes.create_index(
        "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
    )
    marker = f"secret-{new_id}"
    assert (await api.put(f"/notes/{new_id}-1", json={"slug": marker})).status_code == 201
    refused = await api.put(f"/notes/{new_id}-2", json={"slug": marker})
    assert refused.status_code == 422
    assert "slug" in refused.json()["detail"]
    letters = stack.mongo_client.test.sync_dead_letters.find({"key": f"notes:{new_id}-2"})
    told = [
        refused.text,
        (await api.get("/sync")).text,
        (await api.get("/metrics")).text,
        (await api.get("/readyz")).text,
    ]
    told += [letter["reason"] async for letter in letters]
    told += [process.log.read_text() for process in (stack.worker, stack.api)]
    assert not [text for text in told if marker in text]
