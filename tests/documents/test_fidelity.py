"""Promises 8 and 9: what was written is what every later read gives, and a read changes nothing."""

import json
import random
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import bson
import httpx
import pytest
import pytest_asyncio
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pydantic_core import from_json, to_json

from gears.documents.json_bson import document_bson, elements, same
from gears.documents.numbers import text_for_redis
from tests.audit.test_audit import audit
from tests.support.engines import KindStack
from tests.support.stack import Stack, eventually

MAPPINGS = (
    "things=test.things:id,users=shop.users:_id/oid,tweets=x.tweets:id/int,cars=x.cars:_id/uuid,plain=x.plain:_id"
)
OID, UUID_TEXT = "5f0c5f5b8f1c2b0001a0b0c1", "3b241101-e2bb-4255-8caf-4136c566a962"

INPUTS = {
    each["name"]: each
    for each in map(json.loads, Path(__file__).with_name("inputs").joinpath("documents.jsonl").open())
}

EVERY_TYPE: dict[str, Any] = {
    "double": 12.917521550408111,
    "whole": 5.0,
    "minus zero": -0.0,
    "not a number": float("nan"),
    "infinite": float("-inf"),
    "text": 'a"\\/\n\x00\x1f\x7fé😀\u2028',
    "nested": {"b": 1, "a": [1, [], {}, {"$ref": "users", "$id": "u1"}]},
    "reference": {"$ref": "users", "$id": ObjectId(OID), "$db": "shop"},
    "like a date": {"$date": "2020-01-02T03:04:05Z"},
    "binary": Binary(b"\x00\xff", 0x80),
    "old binary": Binary(b"abc", 2),
    "uuid": Binary(UUID(UUID_TEXT).bytes, 4),
    "old uuid": Binary(UUID(UUID_TEXT).bytes, 3),
    "oid": ObjectId(OID),
    "yes": True,
    "at": datetime(2020, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "old": datetime(1969, 12, 31, tzinfo=UTC),
    "nothing": None,
    "pattern": Regex("^a", "ix"),
    "code": Code("f()"),
    "scoped": Code("f()", {"at": datetime(2020, 1, 1, tzinfo=UTC)}),
    "int32": 5,
    "int64": Int64(5),
    "large": Int64(2**53 + 1),
    "timestamp": Timestamp(1, 2),
    "decimal": Decimal128("10.50"),
    "lowest": MinKey(),
    "highest": MaxKey(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Everything, with a mapping for each type of ids."""
    stack = Stack(tmp_path_factory.mktemp("fidelity"), MAPPINGS=MAPPINGS)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.close()


@pytest.fixture
def client(system: Stack) -> httpx.AsyncClient:
    """Of the API."""
    return system.client


def collection(stack: Stack, prefix: str, *, raw: bool = False) -> Any:
    """The mapping's collection; `raw` for documents as bytes."""
    mapping = next(each for each in stack.settings.mappings if each.prefix == prefix)
    found = stack.mongo_client[mapping.database][mapping.collection]
    return found.with_options(CodecOptions(document_class=RawBSONDocument)) if raw else found


async def stored(stack: Stack, prefix: str, query: dict[str, Any]) -> bytes | None:
    """The bytes of a document in MongoDB."""
    found = await collection(stack, prefix, raw=True).find_one(query)
    return None if found is None else bytes(found.raw)


async def expire(stack: Stack, key: str) -> None:
    """Have Redis forget a key, as it does when a time to live is over."""
    await stack.redis_client.pexpire(key, 1)

    async def gone() -> bool:
        return not await stack.redis_client.exists(key)

    await eventually(gone)


async def settled(stack: Stack, prefix: str) -> None:
    """Everything is committed, rechecked, and swept once more."""
    await stack.drained(prefix)
    await stack.redis_client.set(f"sync:{{{prefix}}}:sweep", "the test")
    before = len(await _sweeps(stack, prefix))

    async def swept() -> bool:
        return len(await _sweeps(stack, prefix)) > before

    await eventually(swept, within=20)
    await stack.drained(prefix)


async def _sweeps(stack: Stack, prefix: str) -> list[Any]:
    mapping = next(each for each in stack.settings.mappings if each.prefix == prefix)
    found = stack.mongo_client[mapping.database].sync_audits.find({"mapping": prefix, "because": "the test"})
    return list(await found.to_list())


def put_body(name: str) -> bytes:
    """A document among the inputs that are PUT."""
    document = INPUTS[name]["document"]
    if name == "double":
        return b'{"x": 12.917521550408111, "y": 0.1234567890123456789, "z": -77.03653030000001}'
    return json.dumps(document).encode()


@pytest.mark.parametrize("name", ["dbref", "json-schema", "double", "order", "near-ejson"])
async def test_what_was_put_is_what_every_later_read_gives(system: Stack, client: httpx.AsyncClient, name: str) -> None:
    path, key = f"/things/{name}", f"things:{name}"
    body = put_body(name)
    expected = from_json(body)
    expected = expected if "id" in expected else {"id": name} | expected
    put = await client.put(path, content=body, headers={"Content-Type": "application/json"})
    assert put.status_code == 201, put.text
    assert same(from_json(put.content), expected)
    await expire(system, key)
    for _ in range(2):
        got = await client.get(path)
        assert (got.content, got.headers["ETag"]) == (put.content, put.headers["ETag"])
    await settled(system, "things")
    await expire(system, key)
    patched = await client.patch(path, json={"touched": True}, headers={"If-Match": put.headers["ETag"]})
    assert patched.status_code == 200
    assert same(from_json(patched.content), expected | {"touched": True})


async def test_a_read_changes_no_document_that_mongodb_held_before(system: Stack, client: httpx.AsyncClient) -> None:
    things = collection(system, "things")
    await things.insert_one({"id": "legacy", **EVERY_TYPE})
    await things.insert_one({"id": "legacy-double", "x": 12.917521550408111})
    before = [await stored(system, "things", {"id": each}) for each in ("legacy", "legacy-double")]
    answers = {(await client.get("/things/legacy")).content for _ in range(2)}
    await client.get("/things/legacy-double")
    await settled(system, "things")
    answers.add((await client.get("/things/legacy")).content)
    code, [report], _ = await audit(system, "--repair", "--mapping", "things")
    assert (code, report["repaired"]) == (0, 0)
    await expire(system, "things:legacy")
    answers |= {(await client.get("/things/legacy")).content for _ in range(2)}
    [page] = [each for each in (await client.get("/things")).json()["items"] if each["id"] == "legacy"]
    assert [await stored(system, "things", {"id": each}) for each in ("legacy", "legacy-double")] == before
    [answer] = answers
    assert same(page, from_json(answer))
    assert same(from_json(answer)["at"], {"$date": "2020-01-02T03:04:05.678Z"})


async def test_values_keep_their_types_when_another_field_is_patched(system: Stack, client: httpx.AsyncClient) -> None:
    things = collection(system, "things")
    await things.insert_one({"z": 1, "id": "patched", **EVERY_TYPE, "last": 1})
    assert (await client.patch("/things/patched", json={"last": None, "touched": 1})).status_code == 200
    found = await stored(system, "things", {"id": "patched"})
    assert found is not None
    expected = bson.encode({"z": 1, "id": "patched", **EVERY_TYPE, "int64": 5, "touched": 1})
    assert _without(found, "_id", "_sync") == expected


async def test_extended_json_is_shown_and_taken(system: Stack, client: httpx.AsyncClient) -> None:
    document = INPUTS["ejson"]["document"]
    put = await client.put("/things/ejson", json=document)
    assert put.json() == document
    found = await collection(system, "things").find_one({"id": "ejson"})
    assert found is not None
    assert found["at"] == datetime(2020, 1, 2, 3, 4, 5, 678000)
    assert (found["ref"], found["price"]) == (ObjectId(OID), Decimal128("10.50"))
    assert found["blob"] == Binary(b"\x00\xff", 0x80)
    assert await collection(system, "things").count_documents(
        {"at": {"$gt": datetime(2020, 1, 1, tzinfo=UTC)}, "id": "ejson"}
    )


def _without(raw: bytes, *names: str) -> bytes:
    """A document's bytes without some of its fields."""
    return document_bson(
        b"%c%b\0%b" % (tag, name.encode(), raw[start:end])
        for name, tag, start, end in elements(raw)
        if name not in names
    )


@pytest.mark.parametrize(
    ("events", "target"),
    [
        ([("JSON.NUMINCRBY", "things:e", "$.int32", "1")], "e"),
        ([("RENAME", "things:e", "things:f")], "f"),
        ([("COPY", "things:e", "things:f")], "f"),
        ([("COPY", "things:e", "things:f"), ("DEL", "things:e")], "f"),
    ],
    ids=["increment", "rename", "copy", "copy and delete"],
)
async def test_what_is_done_to_a_document_that_was_read_keeps_its_types(
    system: Stack, client: httpx.AsyncClient, events: list[tuple[str, ...]], target: str
) -> None:
    things = collection(system, "things")
    for each in "ef":
        await client.delete(f"/things/{each}")
    await things.insert_one({"id": "e", **EVERY_TYPE})
    await client.get("/things/e")
    await system.drained("things")
    for command in events:
        await system.redis_client.execute_command(*command)

    async def moved() -> bool:
        found = await stored(system, "things", {"id": target})
        changed = 6 if command[0].startswith("JSON") else 5
        expected = bson.encode({"id": target, **EVERY_TYPE, "int32": changed, "int64": 5})
        return found is not None and _without(found, "_id", "_sync") == expected

    await eventually(moved)
    await settled(system, "things")
    shown = (await client.get(f"/things/{target}")).content
    assert from_json(shown)["id"] == target
    assert from_json(await system.redis_client.execute_command("JSON.GET", f"things:{target}"))["id"] == target
    await expire(system, f"things:{target}")
    assert (await client.get(f"/things/{target}")).content == shown
    for each in "ef":
        await client.delete(f"/things/{each}")


IDS = [
    ("things", "5", "5"),
    ("tweets", "5", 5),
    ("users", OID, {"$oid": OID}),
    ("cars", UUID_TEXT, {"$uuid": UUID_TEXT}),
    ("plain", "p", "p"),
]


@pytest.mark.parametrize(("prefix", "text", "shown"), IDS, ids=[each[0] for each in IDS])
@pytest.mark.parametrize(
    "given",
    [{}, {"<id>": 5.5}, {"<id>": None}, {"<id>": "9"}, {"<id>": ["x"]}, {"a": 1, "<id>": {"b": 1}, "z": 2}],
    ids=str,
)
async def test_whatever_id_a_plain_client_leaves_both_sides_hold_the_keys(
    system: Stack, client: httpx.AsyncClient, prefix: str, text: str, shown: Any, given: dict[str, Any]
) -> None:
    mapping = next(each for each in system.settings.mappings if each.prefix == prefix)
    document = {(mapping.id_field if name == "<id>" else name): value for name, value in given.items()} | {
        "text": "a tweet"
    }
    right = (
        {mapping.id_field: shown} | document
        if mapping.id_field not in document
        else document | {mapping.id_field: shown}
    )
    await system.set(text, document, prefix)

    async def named() -> bool:
        return same(await system.get(text, prefix), right) and await system.redis_client.xlen(f"sync:{{{prefix}}}") == 0

    await eventually(named, within=3)
    got = await client.get(f"/{prefix}/{text}")
    assert same(got.json(), right)
    found = await collection(system, prefix).find_one({mapping.id_field: mapping.id_type.parse(text)})
    assert found is not None
    assert found["text"] == "a tweet"
    await expire(system, f"{prefix}:{text}")
    assert (await client.get(f"/{prefix}/{text}")).content == got.content
    replaced = await client.put(f"/{prefix}/{text}", content=got.content, headers={"Content-Type": "application/json"})
    assert replaced.status_code == 200
    assert replaced.headers["ETag"] == got.headers["ETag"]


@pytest.mark.parametrize(("prefix", "text", "shown"), IDS, ids=[each[0] for each in IDS])
async def test_a_body_has_the_id_of_the_path_or_none(
    system: Stack, client: httpx.AsyncClient, prefix: str, text: str, shown: Any
) -> None:
    field = "_id" if prefix in ("users", "cars", "plain") else "id"
    await client.delete(f"/{prefix}/{text}")
    for body, status in (({"a": 1}, 201), ({"a": 1, field: shown, "b": 2}, 200)):
        put = await client.put(f"/{prefix}/{text}", json=body)
        assert put.status_code == status, put.text
        assert list(put.json()) == (list(body) if field in body else [field, *body])
        assert same(put.json()[field], shown)
    for other in ("another", 7.0, True, None, {"$oid": "x"}, [shown]):
        refused = await client.put(f"/{prefix}/{text}", json={"a": 2, field: other})
        assert refused.status_code == 422
        detail = refused.json()["detail"]
        assert to_json(other).decode() in detail
        assert to_json(shown).decode() in detail
    assert (await client.patch(f"/{prefix}/{text}", json={field: "another"})).status_code == 422
    patched = await client.patch(f"/{prefix}/{text}", json={field: shown, "c": 3})
    assert list(patched.json()) == ["a", field, "b", "c"]
    assert (await client.delete(f"/{prefix}/{text}")).status_code == 204
    assert await stored(system, prefix, {field: next(iter(IDS))[1]}) is None


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("tweets", ["007", "-0", "7.0", "a", "9223372036854775808", "+7"]),
        ("users", [OID.upper(), "7", OID + "00"]),
        ("cars", [UUID_TEXT.upper(), UUID_TEXT.replace("-", "")]),
    ],
)
async def test_no_other_text_is_an_id(system: Stack, client: httpx.AsyncClient, prefix: str, others: list[str]) -> None:
    for other in others:
        assert (await client.get(f"/{prefix}/{other}")).status_code == 404
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await client.request(method, f"/{prefix}/{other}", json={})
            assert answer.status_code == 422, (method, other)
        await system.redis_client.execute_command("JSON.SET", f"{prefix}:{other}", "$", "{}")
    await system.drained(prefix)

    async def taken_back() -> bool:
        return not await system.redis_client.exists(*(f"{prefix}:{other}" for other in others))

    await eventually(taken_back)


async def test_a_post_without_an_id_makes_one_of_the_type(client: httpx.AsyncClient) -> None:
    refused = await client.post("/tweets", json={"a": 1})
    assert refused.status_code == 422
    assert "whole numbers" in refused.json()["detail"]
    created = await client.post("/tweets", json={"a": 1, "id": 70})
    assert (created.status_code, created.headers["Location"]) == (201, "/tweets/70")
    assert (await client.post("/tweets", json={"id": 70})).status_code == 409
    assert (await client.post("/tweets", json={"id": "71"})).status_code == 422
    for prefix, name in (("users", "$oid"), ("cars", "$uuid")):
        made = await client.post(f"/{prefix}", json={"a": 1})
        assert made.status_code == 201
        text = made.json()["_id"][name]
        assert made.headers["Location"] == f"/{prefix}/{text}"
        assert (await client.get(f"/{prefix}/{text}")).json() == {"_id": {name: text}, "a": 1}


@pytest.mark.parametrize(
    ("prefix", "ids"),
    [
        ("tweets", ["-9223372036854775808", "-10", "-9", "0", "2", "10", "9007199254740993", "9223372036854775807"]),
        ("users", ["000000000000000000000000", "00000000000000000000000a", "ff0000000000000000000000"]),
        ("cars", [f"{first}-0000-4000-8000-000000000000" for first in ("00000000", "0f000000", "ff000000")]),
    ],
)  # fmt: skip
async def test_pages_are_in_the_order_of_the_type(
    system: Stack, client: httpx.AsyncClient, prefix: str, ids: list[str]
) -> None:
    mapping = next(each for each in system.settings.mappings if each.prefix == prefix)
    await collection(system, prefix).delete_many({})
    await system.redis_client.delete(*[key async for key in system.redis_client.scan_iter(f"{prefix}:*")] or ["none"])
    await system.drained(prefix)
    for text in random.sample(ids, len(ids)):
        assert (await client.put(f"/{prefix}/{text}", json={"n": 1})).is_success
    await collection(system, prefix).insert_one({mapping.id_field: "of another type"})
    seen, after = [], None
    while True:
        page = (await client.get(f"/{prefix}", params={"limit": "2"} | ({"after": after} if after else {}))).json()
        seen += page["items"]
        after = page["next"]
        if after is None:
            break
    assert seen == [{mapping.id_field: mapping.id_type.json(text), "n": 1} for text in ids]
    assert (await client.get(f"/{prefix}", params={"after": "no id"})).status_code == 400
    for text in ids:
        await system.redis_client.pexpire(f"{prefix}:{text}", 1)
    code, [report], _ = await audit(system, "--mapping", prefix)
    assert (code, report["cold"] + report["equal"]) == (0, len(ids))


async def in_redis(stack: Stack, key: str) -> bytes:
    """The text that Redis shows."""
    [text] = await stack.redis_client.execute_command("EVAL", "return {redis.call('JSON.GET', KEYS[1])}", 1, key)
    return bytes(text)


def bits(numbers: list[float]) -> list[bytes]:
    return [struct.pack("<d", number) for number in numbers]


def any_doubles(source: random.Random, count: int) -> list[float]:
    """Of random bits, the finite ones."""
    found: list[float] = []
    while len(found) < count:
        (number,) = struct.unpack("<d", source.randbytes(8))
        if number - number == 0.0:
            found.append(number)
    return found


@pytest.mark.parametrize("kind", ["of random bits", "between -1000 and 1000"])
async def test_no_bit_of_a_double_is_changed(system: Stack, client: httpx.AsyncClient, kind: str) -> None:
    source = random.Random(13)
    for n in range(100):
        numbers = (
            any_doubles(source, 1000)
            if kind == "of random bits"
            else [source.uniform(-1000, 1000) for _ in range(1000)]
        )
        path, key = f"/things/doubles-{n}", f"things:doubles-{n}"
        put = await client.put(path, json={"x": numbers[0], "deep": {"a b": [{"é": numbers[1:]}]}})
        assert put.is_success, put.text
        assert await in_redis(system, key) == put.content
        [found] = await collection(system, "things").find({"id": f"doubles-{n}"}).to_list()
        await expire(system, key)
        got = await client.get(path)
        assert got.content == put.content
        assert await in_redis(system, key) == put.content
        for document in (from_json(got.content), found):
            assert bits([document["x"], *document["deep"]["a b"][0]["é"]]) == bits(numbers)


@pytest.mark.parametrize("kind", ["redis-stack-7.4-gears2", "redis-8.2-function", "valkey-9.1-function"])
async def test_numbers_that_take_an_increment_are_written_and_filled_as_one_write(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """Under any name; and the events of an increment are taken for no write of a plain client."""
    source = random.Random(3)
    numbers = [number for number in any_doubles(source, 20_000) if text_for_redis(number).increment][:60]
    names = ["x", "", " a", "a\\b", "a\\\\b", "\"'", "a.b", "$", "é😀", "\n", "]", "'", '"', "a", "a\\", "\\"]
    document: dict[str, Any] = {
        name: {"n": [source.choice(numbers), {"é": source.choice(numbers)}], name: 1} for name in names
    }
    document = {"all": document | {f"{name}!": source.choice(numbers) for name in names}}
    stack = KindStack(tmp_path_factory.mktemp("increments"), kind)
    try:
        await stack.start_redis()
        await stack.start(stack.mongo, stack.worker, stack.api)
        put = await stack.client.put("/notes/a", json=document)
        assert put.status_code == 201, put.text
        assert same(from_json(put.content), {"id": "a"} | document)
        notes: Any = stack.mongo_client.test.notes.with_options(CodecOptions(document_class=RawBSONDocument))
        before = await notes.find_one({"id": "a"})
        added = (await stack.redis_client.xinfo_stream("sync:{notes}"))["entries-added"]
        await expire(stack, "notes:a")
        assert (await stack.client.get("/notes/a")).content == put.content
        assert await in_redis(stack, "notes:a") == put.content
        await anyio.sleep(
            1.5
        )  # by then the listener has captured what it takes for a plain client's, and it is rechecked
        await stack.drained("notes")
        assert await notes.find_one({"id": "a"}) == before
        assert (await stack.redis_client.xinfo_stream("sync:{notes}"))["entries-added"] == added + 1
    finally:
        await stack.close()
