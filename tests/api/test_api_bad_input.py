"""What isn't acceptable is refused with a problem of its own, and changes nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from tests.support.stack import Stack

JSON = {"Content-Type": "application/json"}


def kind(answer: httpx.Response) -> tuple[int, str]:
    """Status and name of a problem, after checking that it is a proper one."""
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    return answer.status_code, problem["type"].removeprefix("urn:writethrough:problem:")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "malformed-json")),
        (b"{", (400, "malformed-json")),
        (b'{"a": 1} x', (400, "malformed-json")),
        (b'{"a": NaN}', (400, "malformed-json")),
        (b'{"a": Infinity}', (400, "malformed-json")),
        (b'{"a": "\\ud800"}', (400, "malformed-json")),
        (b'{"a": "\xff"}', (400, "malformed-json")),
        (b"[]", (422, "invalid-document")),
        (b"null", (422, "invalid-document")),
        (b'"x"', (422, "invalid-document")),
        (b'{"a": 9223372036854775808}', (422, "invalid-document")),
        (b'{"a": -9223372036854775809}', (422, "invalid-document")),
        (b'{"a": ' + b"9" * 5000 + b"}", (422, "invalid-document")),
        (b'{"a": 1e400}', (422, "invalid-document")),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", (422, "invalid-document")),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", (422, "invalid-document")),
        (b'{"_id": 1}', (422, "invalid-document")),
        (b'{"_sync": {}}', (422, "invalid-document")),
        (b'{"$set": 1}', (422, "invalid-document")),
        (b'{"a": {"x\\u0000y": 1}}', (422, "invalid-document")),
        (b'{"id": "another"}', (422, "invalid-document")),
        (b'{"id": 5}', (422, "invalid-document")),
        (b'{"id": null}', (422, "invalid-document")),
    ],
    ids=range(23),
)
async def test_a_bad_body_changes_nothing(
    stack: Stack, api: httpx.AsyncClient, new_id: str, body: bytes, expected: tuple[int, str]
) -> None:
    path = f"/notes/{new_id}"
    await api.put(path, json={"n": 1})
    assert kind(await api.put(path, content=body, headers=JSON)) == expected
    if b'"id"' not in body:
        assert kind(await api.post("/notes", content=body, headers=JSON)) == expected
    assert (await api.get(path)).json() == {"id": new_id, "n": 1}
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 1}


@pytest.mark.parametrize("depth", [99, 100])
async def test_depth_is_taken_up_to_what_mongodb_takes(api: httpx.AsyncClient, new_id: str, depth: int) -> None:
    body = b'{"a": ' * (depth - 1) + b"{}" + b"}" * (depth - 1)
    assert (await api.put(f"/notes/{new_id}", content=body, headers=JSON)).status_code == 201


@pytest.mark.parametrize("document_id", [5, None, "", "x" * 1025, "a\0b", {}])
async def test_a_post_with_a_bad_id_is_invalid(api: httpx.AsyncClient, document_id: Any) -> None:
    assert kind(await api.post("/notes", json={"id": document_id})) == (422, "invalid-document")


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ("%ff", (400, "bad-request")),
        ("%ED%A0%80", (400, "bad-request")),
        ("%zz", (400, "bad-request")),
        ("%", (400, "bad-request")),
        ("a%00b", (422, "invalid-document")),
        ("x" * 1025, (422, "invalid-document")),
    ],
)
async def test_a_bad_id_in_the_path(stack: Stack, encoded: str, expected: tuple[int, str]) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert kind(await raw(stack, method, f"/notes/{encoded}", JSON, b"{}")) == expected


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 201),
        ({"Content-Type": 'Application/JSON;charset="UTF-8"'}, 201),
        ({}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/merge-patch+json"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
    ],
)
async def test_only_plain_json_is_taken(api: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    assert (await api.post("/notes", content=b"{}", headers=headers)).status_code == status


async def test_a_model_names_every_field_that_is_wrong(api: httpx.AsyncClient, new_id: str) -> None:
    todo = {"name": "", "description": 5, "done": "yes", "due": "tomorrow", "priority": "urgent", "tags": ["a", ""]}
    answer = await api.put(f"/todos/{new_id}", json=todo)
    assert kind(answer) == (422, "invalid-document")
    errors = answer.json()["errors"]
    assert {error["field"] for error in errors} == {"name", "description", "done", "due", "priority", "tags.1"}
    assert all(error["message"] for error in errors)
    assert kind(await api.put(f"/todos/{new_id}", json={})) == (422, "invalid-document")
    assert (await api.get(f"/todos/{new_id}")).status_code == 404


async def test_a_patch_must_leave_an_acceptable_document(api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/todos/{new_id}"
    before = (await api.put(path, json={"name": "x"})).json()
    patches: list[Any] = [{"name": None}, {"id": "other"}, {"id": None}, [], 5, None, {"_id": 1}, {"a": 2**63}]
    for patch in patches:
        content = json.dumps(patch)
        assert kind(await api.patch(path, content=content, headers=JSON)) == (422, "invalid-document")
    assert kind(await api.patch(path, content=b"{", headers=JSON)) == (400, "malformed-json")
    assert kind(await api.patch(path, content=b"{}", headers={"Content-Type": "text/plain"}))[0] == 415
    assert kind(await api.patch(f"{path}x", json={})) == (404, "not-found")
    assert (await api.patch(path, json={"id": new_id, "a": {"b": None}})).json() == before | {"a": {}}


async def test_20_mb_are_refused_before_they_are_read(api: httpx.AsyncClient, new_id: str) -> None:
    body = b'{"a": "' + b"x" * 20_000_000 + b'"}'
    assert kind(await api.put(f"/notes/{new_id}", content=body, headers=JSON)) == (413, "too-large")


async def test_20_mb_are_refused_while_they_are_read(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"a": "'
        for _ in range(320):
            yield b"x" * 65536
            sent += 65536

    assert kind(await api.put(f"/notes/{new_id}", content=chunks(), headers=JSON)) == (413, "too-large")
    assert (await api.get("/healthz")).status_code == 200


async def test_a_large_document_is_stored(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    note = {"id": new_id, "text": "x" * 4_000_000, "numbers": list(range(50_000))}
    answer = await api.put(f"/notes/{new_id}", json=note)
    assert answer.status_code == 201, answer.text[:500]
    assert await stack.stored(new_id, "notes") == note


async def test_a_document_too_large_for_mongodb_is_refused_before_it_is_written(
    stack: Stack, api: httpx.AsyncClient, new_id: str
) -> None:
    await api.put(f"/notes/{new_id}", json={"n": 1})
    body = json.dumps({"n": list(range(1_450_000))}, separators=(",", ":"))
    answer = await api.put(f"/notes/{new_id}", content=body, headers=JSON | {"Prefer": "wait=20"})
    assert kind(answer) == (422, "invalid-document")
    assert (await api.get(f"/notes/{new_id}")).json() == {"id": new_id, "n": 1}
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 1}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/", (405, "method-not-allowed")),
        ("GET", "/-", (404, "not-found")),
        ("GET", "/-/", (404, "not-found")),
        ("GET", "/nothing", (404, "not-found")),
        ("GET", "/nothing/here", (404, "not-found")),
        ("GET", "/todos%2Fx", (404, "not-found")),
        ("POST", "/healthz", (405, "method-not-allowed")),
        ("DELETE", "/todos", (405, "method-not-allowed")),
        ("POST", "/todos/x", (405, "method-not-allowed")),
    ],
)
async def test_what_isnt_there(stack: Stack, method: str, path: str, expected: tuple[int, str]) -> None:
    answer = await raw(stack, method, path, {}, b"")
    assert kind(answer) == expected
    if answer.status_code == 405:
        assert "OPTIONS" in answer.headers["Allow"]


async def test_options_and_head(api: httpx.AsyncClient, new_id: str) -> None:
    options = await api.options("/todos/x")
    assert (options.status_code, options.headers["Allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
    assert "application/merge-patch+json" in options.headers["Accept-Patch"]
    assert (await api.options("/todos")).headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    await api.put(f"/notes/{new_id}", json={})
    head, get = await api.head(f"/notes/{new_id}"), await api.get(f"/notes/{new_id}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["ETag"] == get.headers["ETag"]
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"nonsense\r\n\r\n", (400, "bad-request")),
        (b"GET /todos/\xff HTTP/1.1\r\nHost: x\r\n\r\n", (400, "bad-request")),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000, (431, "head-too-large")),
    ],
    ids=["nonsense", "byte in path", "endless header"],
)
async def test_what_isnt_http_gets_a_problem_too(stack: Stack, sent: bytes, expected: tuple[int, str]) -> None:
    async with await anyio.connect_tcp("127.0.0.1", stack.setup.port) as stream:
        await stream.send(sent)
        answer = b""
        with anyio.fail_after(5):
            while b"}" not in answer:
                answer += await stream.receive()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert int(head.split()[1]) == expected[0]
    assert json.loads(body)["type"].endswith(expected[1])


async def test_a_client_that_goes_away_leaves_no_trace_in_the_log(stack: Stack, api: httpx.AsyncClient) -> None:
    log = stack.folder / "api.log"
    before = len(log.read_text())
    async with await anyio.connect_tcp("127.0.0.1", stack.setup.port) as stream:
        await stream.send(
            b"PUT /notes/away HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await api.get("/healthz")
    await api.get("/healthz")
    logged = log.read_text()[before:]
    assert "Traceback" not in logged
    assert '"level": "error"' not in logged


async def raw(stack: Stack, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
    """A request whose path is sent as it is, which httpx wouldn't."""
    async with httpx.AsyncClient() as client:
        request = client.build_request(method, stack.client.base_url, headers=headers, content=body)
        request.url = stack.client.base_url.copy_with(raw_path=path.encode())
        return await client.send(request)
