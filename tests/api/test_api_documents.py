"""The documents of a mapping over HTTP: what each call answers, and what is in MongoDB when it does."""

from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis

from tests.support.stack import Stack, eventually

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


async def test_a_todo_lives_its_whole_life(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/todos/{new_id}"
    todo = {"id": new_id, "name": "some todo", "description": "some description"}

    created = await api.post("/todos", json=todo)
    assert created.status_code == 201
    assert created.headers["Location"] == path
    assert created.json() == todo
    assert await stack.stored(new_id) == todo

    read = await api.get(path)
    assert (read.status_code, read.json()) == (200, todo)
    assert read.headers["ETag"] == created.headers["ETag"]
    assert read.headers["Content-Type"] == "application/json"

    replaced = await api.put(path, json={"name": "another", "due": "2030-01-31"})
    assert replaced.status_code == 200
    assert replaced.json() == {"id": new_id, "name": "another", "due": "2030-01-31"}
    assert await stack.stored(new_id) == replaced.json()
    assert replaced.headers["ETag"] != created.headers["ETag"]

    patched = await api.patch(path, json={"due": None, "done": True}, headers=MERGE_PATCH)
    assert patched.status_code == 200
    assert patched.json() == {"id": new_id, "name": "another", "done": True}
    assert await stack.stored(new_id) == patched.json()

    deleted = await api.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert await stack.stored(new_id) is None
    assert (await api.get(path)).status_code == 404
    assert (await api.delete(path)).status_code == 404

    tokens = [answer.headers["Sync-Token"] for answer in (created, replaced, patched, deleted)]
    assert len(set(tokens)) == 4
    assert len(set(tokens)) == len(tokens)


async def test_a_todo_without_an_id_gets_a_uuid7_as_first_field(stack: Stack, api: httpx.AsyncClient) -> None:
    answer = await api.post("/todos", json={"name": "x"})
    document = answer.json()
    assert answer.status_code == 201
    assert list(document) == ["id", "name"]
    assert UUID(document["id"]).version == 7
    assert answer.headers["Location"] == f"/todos/{document['id']}"
    assert await stack.stored(document["id"]) == document


async def test_a_put_creates_and_fills_in_the_id(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    answer = await api.put(f"/notes/{new_id}", json={})
    assert (answer.status_code, answer.json()) == (201, {"id": new_id})
    assert await stack.stored(new_id, "notes") == {"id": new_id}


async def test_what_is_stored_is_what_was_sent(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    note = {
        "zebra": [1, 2.5, True, None, "\u0000 \u00e4 \U0001f600", {"": {"a.b": []}}],
        "id": new_id,
        "big": 2**63 - 1,
        "small": -(2**63),
    }
    answer = await api.put(f"/notes/{new_id}", json=note)
    assert (answer.status_code, answer.json()) == (201, note)
    assert await stack.stored(new_id, "notes") == note


async def test_no_defaults_are_added_and_unknown_fields_are_kept(api: httpx.AsyncClient, new_id: str) -> None:
    todo = {"id": new_id, "name": "x", "colour": {"r": 1}}
    assert (await api.put(f"/todos/{new_id}", json=todo)).json() == todo


async def test_a_post_of_an_id_that_exists_is_a_conflict(api: httpx.AsyncClient, new_id: str) -> None:
    assert (await api.post("/notes", json={"id": new_id, "n": 1})).status_code == 201
    again = await api.post("/notes", json={"id": new_id, "n": 2})
    assert again.status_code == 409
    assert again.json()["type"] == "urn:writethrough:problem:already-exists"
    assert (await api.get(f"/notes/{new_id}")).json()["n"] == 1


@pytest.mark.parametrize(
    "document_id",
    [
        "a:b",
        "a/b",
        "/",
        "a b",
        "..",
        "\u00e4\U0001f600",
        "%41",
        "a?b#c",
        "a+b;c",
        "{x}",
        '"',
        "x" * 1010,
        "\u00e4" * 500,
    ],
    ids=range(13),
)
async def test_any_string_can_be_an_id(stack: Stack, api: httpx.AsyncClient, new_id: str, document_id: str) -> None:
    document_id = f"{document_id}{new_id[:8]}"
    created = await api.post("/notes", json={"id": document_id})
    assert created.status_code == 201, created.text
    path = created.headers["Location"]
    assert path.count("/") == 2
    assert (await api.get(path)).json() == {"id": document_id}
    assert (await api.put(path, json={"n": 1})).json() == {"id": document_id, "n": 1}
    assert await stack.stored(document_id, "notes") == {"id": document_id, "n": 1}
    assert (await api.delete(path)).status_code == 204


async def test_a_slash_in_an_id_may_be_sent_plain(api: httpx.AsyncClient, new_id: str) -> None:
    await api.put(f"/notes/{new_id}/a//b", json={"n": 1})
    assert (await api.get(f"/notes/{new_id}%2Fa%2F%2Fb")).json() == {"id": f"{new_id}/a//b", "n": 1}


async def test_pages_hold_every_document_once(api: httpx.AsyncClient, new_id: str) -> None:
    ids = [f"{new_id}-{number}" for number in range(7)]
    for document_id in reversed(ids):
        await api.put(f"/notes/{document_id}", json={"n": document_id})
    seen: list[str] = []
    after: str | None = f"{new_id}-"
    while after is not None and len(seen) < len(ids):
        page = (await api.get("/notes", params={"limit": 3, "after": after})).json()
        seen += [item["id"] for item in page["items"]]
        assert all("_id" not in item and "_sync" not in item for item in page["items"])
        after = page["next"]
    assert seen[: len(ids)] == ids


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", "", "\u0661"])
async def test_a_page_has_1_to_1000_documents(api: httpx.AsyncClient, limit: str) -> None:
    assert (await api.get("/notes", params={"limit": limit})).status_code == 400


async def test_an_evicted_document_is_read_from_mongodb_and_back_in_redis(
    stack: Stack, api: httpx.AsyncClient, redis: Redis, new_id: str
) -> None:
    before = await api.put(f"/notes/{new_id}", json={"n": 1.0})
    await stack.drained("notes")
    await evict(redis, f"notes:{new_id}")
    read = await api.get(f"/notes/{new_id}")
    assert (read.status_code, read.json()) == (200, {"id": new_id, "n": 1.0})
    assert read.headers["ETag"] == before.headers["ETag"]
    assert await redis.exists(f"notes:{new_id}")


async def test_a_cold_document_counts_as_existing(
    stack: Stack, api: httpx.AsyncClient, redis: Redis, new_id: str
) -> None:
    path = f"/notes/{new_id}"

    async def make_cold() -> None:
        await api.put(path, json={"n": 1})
        await stack.drained("notes")
        await evict(redis, f"notes:{new_id}")

    await make_cold()
    assert (await api.put(path, json={"n": 2})).status_code == 200
    await make_cold()
    assert (await api.post("/notes", json={"id": new_id})).status_code == 409
    assert (await api.put(path, json={}, headers={"If-None-Match": "*"})).status_code == 412
    await make_cold()
    assert (await api.patch(path, json={"m": 3})).json() == {"id": new_id, "n": 1, "m": 3}
    await make_cold()
    assert (await api.put(path, json={}, headers={"If-Match": "*"})).status_code == 200
    await make_cold()
    assert (await api.delete(path)).status_code == 204
    assert await stack.stored(new_id, "notes") is None
    assert (await api.get(path)).status_code == 404


async def test_plain_redis_clients_and_the_api_see_each_other(
    stack: Stack, api: httpx.AsyncClient, redis: Redis, new_id: str
) -> None:
    await stack.set(new_id, {"id": new_id, "name": "by a plain client"})
    assert (await api.get(f"/todos/{new_id}")).json()["name"] == "by a plain client"
    await api.put(f"/todos/{new_id}", json={"name": "by the API"})
    assert await stack.get(new_id) == {"id": new_id, "name": "by the API"}
    await redis.delete(f"todos:{new_id}")
    assert (await api.get(f"/todos/{new_id}")).status_code == 404


async def test_a_key_of_another_type_is_left_alone(api: httpx.AsyncClient, redis: Redis, new_id: str) -> None:
    await redis.set(f"notes:{new_id}", "not JSON")
    read = await api.get(f"/notes/{new_id}")
    assert read.status_code == 404
    assert "another type" in read.json()["detail"]
    for answer in (
        await api.put(f"/notes/{new_id}", json={}),
        await api.patch(f"/notes/{new_id}", json={}),
        await api.delete(f"/notes/{new_id}"),
        await api.post("/notes", json={"id": new_id}),
    ):
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:writethrough:problem:foreign-key"
    assert await redis.get(f"notes:{new_id}") == b"not JSON"


async def evict(redis: Redis, key: str) -> None:
    """Let a key vanish without being deleted."""
    await redis.pexpire(key, 1)

    async def gone() -> bool:
        return not await redis.exists(key)

    await eventually(gone)
