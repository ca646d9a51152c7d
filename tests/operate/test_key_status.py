"""`GET /sync/keys/{mapping}/{id}`: where one key stands, without a value of it."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gears.process.settings import Settings
from service.app import create_app
from service.auth.authorize import needed_scope
from service.auth.bearer_tokens import Scope
from tests.api.test_openapi import expecting
from tests.support.stack import Stack, eventually

MARKER = "a-value-that-nobody-may-see"

Status = dict[str, Any]
Ask = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def ask(api: httpx.AsyncClient) -> Ask:
    """Asks about a key; the answer is one that the OpenAPI document foresees, and holds no value."""
    expect = expecting((await api.get("/openapi.json")).json(), api)

    async def asked(path: str) -> Status:
        answer = await expect("GET", f"/sync/keys/{path.split('/')[0]}/{{id}}", f"/sync/keys/{path}", 200)
        assert MARKER not in answer.text
        found: Status = answer.json()
        return found

    return asked


async def test_a_committed_document_is_equal_on_both_sides(api: httpx.AsyncClient, ask: Ask, new_id: str) -> None:
    await api.put(f"/todos/{new_id}", json={"name": MARKER})
    status = await ask(f"todos/{new_id}")
    assert (status["state"], status["fields"], status["key"]) == ("equal", [], f"todos:{new_id}")
    assert status["redis"]["holds"] == "document"
    assert status["pending"] == {"entries": 0, "first": None, "last": None, "set_aside": False, "complete": True}
    assert status["last_commit"]["version"] == status["mongodb"]["version"]
    assert status["last_commit"]["at"]
    assert (status["deleted"], status["dead_letter"]) == (None, None)


async def test_what_waits_is_pending(stack: Stack, api: httpx.AsyncClient, ask: Ask, new_id: str) -> None:
    await api.put(f"/todos/{new_id}", json={"name": "old"})
    stack.worker.freeze()
    try:
        tokens = [
            (await api.put(f"/todos/{new_id}", json={"name": name}, headers={"Prefer": "respond-async"})).headers
            for name in ("x", MARKER)
        ]
        status = await ask(f"todos/{new_id}")
    finally:
        stack.worker.thaw()
    assert (status["state"], status["fields"]) == ("pending", ["name"])
    assert status["pending"]["entries"] == 2
    assert [status["pending"]["first"], status["pending"]["last"]] == [each["Sync-Token"] for each in tokens]


async def test_what_is_set_aside_is_pending(stack: Stack, ask: Ask, new_id: str) -> None:
    kept = {"x.1-1": f"json.set todos:{new_id}", "x.1-2": f"json.set todos:{new_id}-other"}
    for token, what in kept.items():
        await stack.redis_client.hset("sync:{todos}:aside", token, what)
    try:
        status = await ask(f"todos/{new_id}")
    finally:
        await stack.redis_client.hdel("sync:{todos}:aside", *kept)
    assert (status["state"], status["pending"]["set_aside"], status["pending"]["first"]) == ("pending", True, "x.1-1")


async def test_what_differs_is_named_by_its_fields(stack: Stack, api: httpx.AsyncClient, ask: Ask, new_id: str) -> None:
    await api.put(f"/notes/{new_id}", json={"same": 1, "inner": {"one": 1, "other": MARKER}})

    async def differs() -> Status | None:  # until a recheck has passed that repairs it
        await stack.mongo_client.test.notes.update_one({"id": new_id}, {"$set": {"inner.other": f"{MARKER}!"}})
        status: Status = await ask(f"notes/{new_id}")
        return status if status["state"] == "stale" else None

    assert (await eventually(differs))["fields"] == ["inner.other"]
    await api.delete(f"/notes/{new_id}")


async def test_a_deleted_document_is_absent(api: httpx.AsyncClient, ask: Ask, new_id: str) -> None:
    await api.put(f"/todos/{new_id}", json={"name": "x"})
    token = (await api.delete(f"/todos/{new_id}")).headers["Sync-Token"]
    status = await ask(f"todos/{new_id}")
    assert (status["state"], status["redis"]["holds"], status["mongodb"]) == ("absent", "nothing", None)
    assert status["redis"]["deleted_by"] == token.rpartition(".")[2]
    assert status["last_commit"]["version"] == status["deleted"]["version"]


async def test_what_nobody_ever_wrote_is_absent(ask: Ask, new_id: str) -> None:
    status = await ask(f"todos/{new_id}")
    assert (status["state"], status["last_commit"], status["deleted"]) == ("absent", None, None)


async def test_what_only_mongodb_holds_is_cold(stack: Stack, ask: Ask, new_id: str) -> None:
    await stack.mongo_client.test.notes.insert_one({"id": new_id, "name": MARKER})
    status = await ask(f"notes/{new_id}")
    await stack.mongo_client.test.notes.delete_one({"id": new_id})
    assert (status["state"], status["redis"]["holds"]) == ("cold", "nothing")
    assert (status["mongodb"]["version"], status["last_commit"]) == (None, None)


async def test_another_type_is_foreign(stack: Stack, ask: Ask, new_id: str) -> None:
    await stack.redis_client.set(f"todos:{new_id}", MARKER)
    status = await ask(f"todos/{new_id}")
    await stack.redis_client.delete(f"todos:{new_id}")
    assert (status["state"], status["redis"]["holds"]) == ("foreign", "another type")


async def test_a_refused_document_has_its_dead_letter(
    stack: Stack, api: httpx.AsyncClient, ask: Ask, new_id: str
) -> None:
    await stack.set(new_id, {"$bad": MARKER}, "notes")

    async def refused() -> Status | None:
        status: Status = await ask(f"notes/{new_id}")
        return status if status["state"] == "absent" and status["dead_letter"] else None

    letter = (await eventually(refused))["dead_letter"]
    assert "$bad" in letter["reason"]
    assert not letter["written_since"]
    await api.put(f"/notes/{new_id}", json={})
    assert (await ask(f"notes/{new_id}"))["dead_letter"] == letter | {"written_since": True}


@pytest.mark.parametrize("tail", ["/b", "%2Fb", "/", "%0a"])
async def test_an_id_may_hold_whatever_a_documents_may(stack: Stack, ask: Ask, new_id: str, tail: str) -> None:
    document_id = new_id + {"%2Fb": "/b", "%0a": "\n"}.get(tail, tail)
    await stack.set(document_id, {})
    status = await ask(f"todos/{new_id}{tail}")
    assert (status["id"], status["redis"]["holds"]) == (document_id, "document")


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("numbers/abc", 404, "not-found"),
        ("numbers/007", 404, "not-found"),
        ("numbers/7", 503, "redis-unavailable"),
        ("names/abc", 503, "redis-unavailable"),
        ("names/%00", 422, "invalid-document"),
        ("names/" + "x" * 1100, 422, "invalid-document"),
        ("names/%ff", 400, "bad-request"),
        ("names/x?limit=1", 400, "bad-request"),
        ("nothing/x", 404, "not-found"),
        ("names/", 404, "not-found"),
    ],
)
async def test_ids_are_those_of_the_mapping(path: str, status: int, problem: str) -> None:
    app = create_app(
        Settings.model_validate(
            {
                "REDIS_URL": "redis://127.0.0.1:1/0",
                "MONGO_URI": "mongodb://127.0.0.1:1",
                "MAPPINGS": "numbers=test.numbers:id/int,names=test.names:id",
            }
        )
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(f"/sync/keys/{path}")
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:writethrough:problem:{problem}")


def test_who_may_read_the_document_may_ask() -> None:
    assert needed_scope("GET", "/sync/keys/todos/1") is Scope.READ
