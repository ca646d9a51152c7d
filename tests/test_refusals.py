"""Promise 7: a refusal changes nothing, and is kept where somebody finds it."""

from typing import Any

import pymongo
import pytest

from tests.stack import Stack, eventually


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
    assert await own_stack.get("a") == {"fixed": True}


async def test_an_evicted_write_is_reported_not_taken_for_a_delete(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 1})
    await own_stack.drained()
    await own_stack.worker.stop()
    await own_stack.set("a", {"n": 2})
    await own_stack.redis_client.pexpire("todos:a", 1)

    async def expired() -> bool:
        return not await own_stack.redis_client.exists("todos:a")

    await eventually(expired)
    await own_stack.worker.start()
    await own_stack.drained()
    assert await own_stack.stored("a") == {"id": "a", "n": 1}
    [letter] = await dead_letters(own_stack, "a")
    assert "expired" in letter["reason"]


async def _rolled_back(stack: Stack, document_id: str, expected: object) -> bool:
    document = await stack.get(document_id)
    return bool(document == expected) and await stack.redis_client.xlen("sync:{todos}") == 0
