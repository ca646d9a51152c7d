"""Bulk: a document a line in, a result a line out, in order, as streams."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic_core import from_json, to_json

from service.documents.resource.bulk import Line, Lines
from service.http.bodies import MAX_BODY
from tests.support.stack import Stack, eventually

NDJSON = {"Content-Type": "application/x-ndjson"}


async def bulk(api: httpx.AsyncClient, *lines: Any, path: str = "/notes/_bulk", **headers: str) -> list[Any]:
    """The results of these lines, which are sent as they are or as JSON."""
    body = b"\n".join(line if isinstance(line, bytes) else to_json(line) for line in lines)
    answer = await api.post(path, content=body, headers=NDJSON | headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == NDJSON["Content-Type"]
    assert answer.content.endswith(b"\n") or not answer.content
    return [from_json(line) for line in answer.content.splitlines()]


def kind(result: Any) -> tuple[int, str]:
    assert result["status"] == result["problem"]["status"]
    return result["status"], result["problem"]["type"].removeprefix("urn:writethrough:problem:")


class Connection:
    """A client that sends and reads at once, and only what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    async def send(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def results(self) -> AsyncIterator[Any]:
        """The results, as they come; ends with the answer."""
        await self._reader.readuntil(b"\r\n\r\n")
        while size := int(await self._reader.readline(), 16):
            *lines, self._rest = (self._rest + await self._reader.readexactly(size)).split(b"\n")
            await self._reader.readexactly(2)
            for line in lines:
                yield from_json(line)


@asynccontextmanager
async def connected(stack: Stack, path: str = "/notes/_bulk") -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.setup.port)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nPrefer: wait=100\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        yield Connection(reader, writer)
    finally:
        writer.close()


async def test_each_line_has_its_result_in_order(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    ids = [f"{new_id}-{n}" for n in range(4)]
    await api.put(f"/notes/{ids[2]}", json={"n": "there already"})
    results = await bulk(
        api,
        {"id": ids[0], "n": 0},
        {"n": "an id of its own"},
        b"",
        b"{",
        {"id": ids[2]},
        {"id": "..", "n": 1},
        [],
        {"id": ids[0], "n": "twice"},
        {"id": ids[3], "n": 3},
    )
    assert [result["status"] for result in results] == [201, 201, 400, 409, 422, 422, 409, 201]
    first, made, *bad, last = results
    assert (first["id"], last["id"]) == (ids[0], ids[3])
    assert [kind(each)[1] for each in bad] == [
        *("malformed-json", "already-exists", "invalid-document", "invalid-document", "already-exists")
    ]
    for result in (first, made, last):  # acknowledged: in MongoDB already
        assert result.keys() == {"status", "id", "token"}
        assert await stack.stored(result["id"], "notes") is not None
        assert (await api.get(f"/sync/{result['token']}")).json()["committed"]
    assert await stack.stored(ids[0], "notes") == {"id": ids[0], "n": 0}


async def test_results_are_what_the_api_says_of_itself(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    schema = document["components"]["schemas"]["Result"] | {"components": document["components"]}
    for result in await bulk(api, {}, b"{", {"id": 7}):
        Draft202012Validator(schema).validate(result)


async def test_a_model_holds_for_lines_too(api: httpx.AsyncClient, new_id: str) -> None:
    fine, bad = await bulk(api, {"name": "x"}, {"name": ""}, path="/todos/_bulk")
    assert fine["status"] == 201
    assert kind(bad) == (422, "invalid-document")
    assert bad["problem"]["errors"][0]["field"] == "name"


async def test_a_cold_document_counts_as_existing(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    await api.put(f"/notes/{new_id}", json={})
    await stack.drained("notes")
    await stack.redis_client.pexpire(f"notes:{new_id}", 1)
    await eventually(lambda: gone(stack, f"notes:{new_id}"))
    [result] = await bulk(api, {"id": new_id})
    assert kind(result) == (409, "already-exists")


async def gone(stack: Stack, key: str) -> bool:
    return not await stack.redis_client.exists(key)


async def test_bulk_may_be_a_documents_id(api: httpx.AsyncClient) -> None:
    assert (await api.put("/notes/_bulk", json={"n": 1})).is_success
    assert (await api.get("/notes/_bulk")).json() == {"id": "_bulk", "n": 1}
    assert (await api.delete("/notes/_bulk")).status_code == 204


async def test_what_is_no_bulk(api: httpx.AsyncClient) -> None:
    assert (await api.post("/notes/_bulk", json={})).status_code == 415
    assert (await api.post("/notes/_bulk", content=b"", headers=NDJSON | {"Idempotency-Key": "x"})).status_code == 400
    assert (await api.post("/notes/_bulk?x=1", content=b"", headers=NDJSON)).status_code == 400
    assert await bulk(api) == []


async def test_writers_who_dont_wait(api: httpx.AsyncClient, new_id: str) -> None:
    [result] = await bulk(api, {"id": new_id}, Prefer="respond-async")
    assert (result["status"], result["id"]) == (202, new_id)


async def test_results_come_while_more_is_sent(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    with anyio.fail_after(20):
        async with connected(stack) as connection:
            results = connection.results()
            for n in range(3):
                await connection.send(b'{"id": "%b-%d"}\n' % (new_id.encode(), n))
                assert (await anext(results))["id"] == f"{new_id}-{n}"
            await connection.send(b'{"id": ')
            await connection.send(b'"%b-last"}' % new_id.encode())
            await connection.end()
            assert [result["id"] async for result in results] == [f"{new_id}-last"]


async def test_no_more_is_read_than_results_are(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    line = b'{"of": "%b", "text": "%b"}\n' % (new_id.encode(), b"x" * 20_000)
    sent = 0
    async with connected(stack) as connection:
        with anyio.move_on_after(2):  # the kernel holds some megabytes, and the service a few batches
            while True:
                await connection.send(line * 10)
                sent += 10
        assert sent
        results = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.end)
            async for result in connection.results():
                assert result["status"] == 201
                results += 1
    assert results >= sent


async def test_while_mongodb_is_away_each_line_is_told_so(own_stack: Stack, new_id: str) -> None:
    stack = own_stack
    await stack.start()
    await stack.mongo.kill()
    with anyio.fail_after(20):  # they wait together
        known, *made = await bulk(stack.client, {"id": new_id}, *({"n": n} for n in range(50)), Prefer="wait=1")
    assert kind(known) == (503, "mongo-unavailable")  # which alone knows whether it exists
    assert {kind(result) for result in made} == {(504, "not-confirmed")}
    assert all(result["token"] == result["problem"]["token"] for result in made)
    await stack.mongo.start()
    await stack.drained("notes")
    assert await stack.mongo_client.test.notes.count_documents({}) == 50


def cut(parts: Iterable[bytes]) -> list[Line]:
    lines = Lines()
    return [line for part in parts for line in lines.feed(part)] + lines.end()


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([], []),
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a", b"", b"b\r\n", b"\n \n\r\nc"], [b"ab\r", b"c"]),
        ([b"\xef\xbb\xbfa\n\xef\xbb\xbfb"], [b"a", b"\xef\xbb\xbfb"]),
        ([b"a\n", b"x" * MAX_BODY, b"xx", b"x\nb\n"], [b"a", None, b"b"]),
        ([b"x" * MAX_BODY, b"\n"], [b"x" * MAX_BODY]),
    ],
    ids=range(6),
)
def test_what_arrives_is_cut_into_lines(parts: list[bytes], lines: list[Line]) -> None:
    assert cut(parts) == lines
