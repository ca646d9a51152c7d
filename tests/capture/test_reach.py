"""An id or a field name reaches its own key and document, and nothing else, whatever is in it."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.stack import Stack

IDS = (
    *("*", "?", "[a-z]", "^", "\\", "\\*", "{x}", "a:b", ":", "...", "../todos/x", "a/b", "//a", "$ne", "$.a", "a.b"),
    *("line\nbreak", "\n", "carriage\r\nreturn", "\t", "\x1b[2J", "\x7f", "\u2028", "\U0001f600", "e\u0301", "\u00e9"),
    *("' || '1'=='1", '"}', "%", "%2F", "+", " ", "#", "?limit=1", "sync:{notes}", "GET x", "true", "null", "0", "-1"),
)
BYSTANDERS = ("bystander", "[a-z", "b", "x", "a", "line", "\u00e9\u0301")


@pytest.mark.parametrize("document_id", IDS, ids=[ascii(document_id) for document_id in IDS])
async def test_an_id_reaches_its_own_document_only(stack: Stack, api: httpx.AsyncClient, document_id: str) -> None:
    for bystander in BYSTANDERS:
        assert (await api.put(f"/notes/{bystander}", json={"n": 0})).status_code in (200, 201)
    before = {"keys": await keys(stack, document_id), "documents": await documents(stack, document_id)}
    path = f"/notes/{quote(document_id, safe='')}"

    assert (await api.put(path, json={"n": 1})).status_code == 201
    assert (await api.get(path)).json() == {"id": document_id, "n": 1}
    assert (await api.patch(path, json={"m": 2})).json() == {"id": document_id, "n": 1, "m": 2}
    assert await stack.stored(document_id, "notes") == {"id": document_id, "n": 1, "m": 2}
    assert (await api.post("/notes", json={"id": document_id})).status_code == 409
    await stack.redis_client.unlink(f"notes:{document_id}")  # by a plain client
    await stack.drained("notes")
    assert await stack.stored(document_id, "notes") is None
    created = await api.post("/notes", json={"id": document_id, "n": 3})
    assert (await api.get(created.headers["Location"])).json() == {"id": document_id, "n": 3}
    after = {"keys": await keys(stack, document_id), "documents": await documents(stack, document_id)}
    assert (await api.delete(path)).status_code == 204
    assert await stack.stored(document_id, "notes") is None
    assert await stack.get(document_id, "notes") is None

    assert before == after


async def keys(stack: Stack, but: str) -> dict[bytes, Any]:
    """Every key of documents but one, with what it holds."""
    found = {key async for key in stack.redis_client.scan_iter(count=1000) if not key.startswith(b"sync:")}
    found.discard(f"notes:{but}".encode())
    return {key: await stack.redis_client.execute_command("JSON.GET", key) for key in found}


async def documents(stack: Stack, but: str) -> list[Any]:
    """Every document in MongoDB but one."""
    return await stack.mongo_client.test.notes.find({"id": {"$ne": but}}).sort("_id").to_list()


@pytest.mark.parametrize("after", ['{"$gt": ""}', "$gt", "[$ne]=1", "\0", "\n"])
async def test_a_query_takes_no_operators(api: httpx.AsyncClient, after: str) -> None:
    page = (await api.get("/notes", params={"after": after, "limit": "1000"})).json()
    assert all(item["id"] > after for item in page["items"])
    assert (await api.get("/notes", params={"after[$ne]": "x", "limit": "1"})).status_code == 400


@pytest.mark.parametrize("name", ["a.b", "a.$[]", "x.$", ".", "__proto__", "constructor", "_sync.v", " ", "\n", "'"])
async def test_a_field_name_is_only_a_name(stack: Stack, api: httpx.AsyncClient, new_id: str, name: str) -> None:
    note = {"id": new_id, "a": {"b": 1}, name: {"$gt": ""} if name == "a.b" else 1}
    answer = await api.put(f"/notes/{new_id}", json=note)
    if answer.status_code == 422:
        assert await stack.stored(new_id, "notes") is None
        return
    assert answer.status_code == 201
    assert await stack.stored(new_id, "notes") == note
    patched = await api.patch(f"/notes/{new_id}", json={name: 2})
    assert patched.json() == note | {name: 2}
    assert await stack.stored(new_id, "notes") == note | {name: 2}


async def test_an_id_is_a_string(api: httpx.AsyncClient, new_id: str) -> None:
    for document_id in ({"$ne": None}, {"$gt": ""}, [new_id], True):
        assert (await api.post("/notes", json={"id": document_id})).status_code == 422
        assert (await api.put(f"/notes/{new_id}", json={"id": document_id})).status_code == 422
        assert (await api.patch(f"/notes/{new_id}", json={"id": document_id})).status_code in (404, 422)
