"""Every kind of drift, planted by hand on either side among 3,000 documents, while clients write."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from bson import Int64

from gears.contract.version import version_of
from gears.in_mongo.client import open_client
from gears.in_mongo.log.batch_log import Log
from tests.audit.test_audit import audit
from tests.support.stack import Stack

DOCUMENTS = 3_000
EACH = 15

OTHER_TYPE = "a key of another type"

DATE = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)

OLD, NEW, FAR = 1, 2, 3
"""Versions: two in the past, and one above all that was given."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How the two sides of a key look.

    Args:
        kind: what the audit must call it.
        redis: JSON text, `OTHER_TYPE`, or None for nothing.
        stored: the fields of the document in MongoDB, or None for nothing.
        version: the document's; None for one that was never committed.
        deleted: the version of the key's tombstone.
    """

    kind: str
    redis: str | None
    stored: dict[str, Any] | None
    version: int | None = OLD
    deleted: int | None = None

    def repaired(self) -> tuple[str | None, str | None]:
        """What both sides hold when it is repaired in the right direction."""
        redis, stored = canonical(self.redis), canonical(self.stored)
        match self.kind:
            case "missing" | "stale":
                return redis, redis
            case "ahead":
                return stored, stored
            case _:
                return redis, stored


DRIFTS = {
    "never committed": Drift("missing", '{"n":1}', None),
    "written after its delete": Drift("missing", '{"n":1}', None, deleted=OLD),
    "older": Drift("stale", '{"n":2,"m":1}', {"n": 1, "m": 1}),
    "field gone in Redis": Drift("stale", '{"n":1}', {"n": 1, "m": 2}),
    "field added in Redis": Drift("stale", '{"n":1,"m":2}', {"n": 1}),
    "field renamed": Drift("stale", '{"n":1}', {"m": 1}),
    "nested field": Drift("stale", '{"a":{"b":[1,{"c":2}]}}', {"a": {"b": [1, {"c": 3}]}}),
    "order of an array": Drift("stale", '{"a":[1,2]}', {"a": [2, 1]}),
    "int for float": Drift("stale", '{"n":1}', {"n": 1.0}),
    "float for int": Drift("stale", '{"n":1.0}', {"n": Int64(1)}),
    "int for string": Drift("stale", '{"n":1}', {"n": "1"}),
    "int for boolean": Drift("stale", '{"n":1}', {"n": True}),
    "null for nothing": Drift("stale", '{"n":null}', {}),
    "precision of a float": Drift("stale", '{"n":0.3}', {"n": 0.1 + 0.2}),
    "precision of an integer": Drift("stale", '{"n":9007199254740993}', {"n": Int64(9007199254740992)}),
    "case": Drift("stale", '{"n":"é"}', {"n": "É"}),
    "never committed, another text": Drift("stale", '{"n":1}', {"n": 2}, version=None),
    "deleted, and back": Drift("stale", None, {"n": 1}, version=OLD, deleted=NEW),
    "deleted at its version, and back": Drift("stale", None, {"n": 1}, version=OLD, deleted=OLD),
    "order of fields": Drift("stale", '{"n":1,"m":2}', {"m": 2, "n": 1}),
    "another id in Redis": Drift("stale", '{"id":7,"n":1}', {"n": 1}),
    "no id in Redis": Drift("stale", '{"n":1,"id":null}', {"n": 1}),
    "a date as earlier versions gave it": Drift("ahead", '{"n":"2020-01-02T03:04:05Z"}', {"n": DATE}),
    "a double as Redis reads it again": Drift("ahead", '{"n":12.917521550408113}', {"n": 12.917521550408111}),
    "another text for a date": Drift("stale", '{"n":"2020-01-02T03:04:06Z"}', {"n": DATE}),
    "another double": Drift("stale", '{"n":12.917521550408115}', {"n": 12.917521550408111}),
    "newer in MongoDB": Drift("ahead", '{"n":1}', {"n": 2}, version=FAR),
    "the same, but newer in MongoDB": Drift("equal", '{"n":1}', {"n": 1}, version=FAR),
    "deleted later in MongoDB": Drift("ahead", '{"n":1}', None, deleted=FAR),
    "evicted": Drift("cold", None, {"n": 1}),
    "evicted, never committed": Drift("cold", None, {"n": 1}, version=None),
    "evicted, written after its delete": Drift("cold", None, {"n": 1}, version=NEW, deleted=OLD),
    "another type": Drift("foreign", OTHER_TYPE, None),
    "another type over a document": Drift("foreign", OTHER_TYPE, {"n": 1}),
    "an array": Drift("foreign", "[1]", None),
    "text over a document": Drift("foreign", '"text"', {"n": 1}),
    "a small integer": Drift("equal", '{"n":1}', {"n": 1}),
    "a date": Drift("equal", '{"n":{"$date":"2020-01-02T03:04:05Z"}}', {"n": DATE}),
    "equal, never committed": Drift("equal", '{"n":1}', {"n": 1}, version=None),
    "equal, written after its delete": Drift("equal", '{"n":1}', {"n": 1}, version=NEW, deleted=OLD),
}

PLAIN = Drift("equal", '{"name":"some todo","n":1}', {"name": "some todo", "n": Int64(1)})


def planted() -> dict[str, Drift]:
    """What each id is made to be."""
    drifts = {f"{name} {n}": drift for name, drift in DRIFTS.items() for n in range(EACH)}
    return drifts | {f"plain {n}": PLAIN for n in range(DOCUMENTS - len(drifts))}


def canonical(document: Any) -> str | None:
    """A document's fields as text that tells types apart; nothing but the id is left out."""
    if document is None or document == OTHER_TYPE:
        return document  # type: ignore[no-any-return]
    document = json.loads(document) if isinstance(document, str | bytes) else document
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if name not in ("id", "_id", "_sync")}
    return json.dumps(document, sort_keys=True, default=lambda date: {"$date": date.strftime("%Y-%m-%dT%H:%M:%SZ")})


def with_id(text: str, document_id: str) -> str:
    """The document with its id in front, unless it has another one."""
    return text if '"id"' in text or text[0] != "{" else json.dumps({"id": document_id} | json.loads(text))


async def plant(stack: Stack, drifts: dict[str, Drift]) -> None:
    """Bring both sides there while no recipe captures and no worker commits."""
    term = await Log(open_client(stack.mongo_uri, timeout=5), stack.settings.mappings[0]).begin_term("planted")
    versions = {OLD: version_of(term, 1), NEW: version_of(term, 2), FAR: version_of(term + 1000, 1)}
    documents, tombstones = [], []
    async with stack.redis_client.pipeline(transaction=False) as pipeline:
        for document_id, drift in drifts.items():
            key = f"todos:{document_id}"
            if drift.redis == OTHER_TYPE:
                pipeline.set(key, "text")
            elif drift.redis is not None:
                pipeline.execute_command("JSON.SET", key, "$", with_id(drift.redis, document_id))
            if drift.stored is not None:
                sync = {} if drift.version is None else {"_sync": {"v": Int64(versions[drift.version])}}
                documents.append({"id": document_id} | drift.stored | sync)
            if drift.deleted is not None:
                deleted_at = Int64(versions[drift.deleted])
                tombstones.append({"_id": key, "mapping": "todos", "v": deleted_at, "at": datetime.now(UTC)})
        await pipeline.execute()
    await stack.todos.insert_many(documents)
    await stack.mongo_client.test.sync_tombstones.insert_many(tombstones)


async def both_sides(stack: Stack) -> dict[str, tuple[str | None, str | None]]:
    """What Redis and MongoDB hold under each id."""
    names = sorted([key async for key in stack.redis_client.scan_iter("todos:*", count=1000)])
    async with stack.redis_client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.execute_command("JSON.GET", name)
        texts = await pipeline.execute(raise_on_error=False)
    in_redis = {
        name.removeprefix(b"todos:").decode(): OTHER_TYPE if isinstance(text, Exception) else canonical(text)
        for name, text in zip(names, texts, strict=True)
    }
    in_mongo = {found["id"]: canonical(found) async for found in stack.todos.find()}
    return {i: (in_redis.get(i), in_mongo.get(i)) for i in in_redis.keys() | in_mongo.keys()}


@asynccontextmanager
async def writers(stack: Stack, acknowledged: dict[str, str | None]) -> AsyncIterator[None]:
    """A plain client and one of the API that set and delete keys of their own."""

    async def write(set_one: Callable[[str, str], Any], delete_one: Callable[[str], Any], name: str) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            document_id = f"{name} {n % 50}"
            if n % 5 == 0 and acknowledged.get(document_id):
                await delete_one(document_id)
                acknowledged[document_id] = None
            else:
                text = json.dumps({"name": "busy", "n": n}, sort_keys=True)
                await set_one(document_id, with_id(text, document_id))
                acknowledged[document_id] = text
            await anyio.sleep(0.002)  # so that the servers have time for the audit too

    async def put(document_id: str, text: str) -> None:
        headers = {"Prefer": "wait=30", "Content-Type": "application/json"}
        answer = await stack.client.put(f"/todos/{document_id}", content=text, headers=headers)
        assert answer.is_success, answer.text

    async def delete(document_id: str) -> None:
        answer = await stack.client.delete(f"/todos/{document_id}", headers={"Prefer": "wait=30"})
        assert answer.status_code == 204, answer.text

    async def plain_set(document_id: str, text: str) -> None:
        await stack.redis_client.execute_command("JSON.SET", f"todos:{document_id}", "$", text)

    async def plain_delete(document_id: str) -> None:
        assert await stack.redis_client.delete(f"todos:{document_id}") == 1

    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, put, delete, "by the API")
        tasks.start_soon(write, plain_set, plain_delete, "by a plain client")
        yield
        stop.set()
    await stack.drained()


@pytest.mark.timeout(300)
async def test_each_kind_of_drift_is_found_exactly_and_repaired_in_the_right_direction(own_stack: Stack) -> None:
    own_stack.env["WT_MONGO_TIMEOUT"] = "20"
    drifts = planted()
    assert len(drifts) == DOCUMENTS
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await plant(own_stack, drifts)
    worker = own_stack.only_committing()
    await worker.start()
    await own_stack.api.start()
    kinds = {
        kind: EACH * [drift.kind for drift in DRIFTS.values()].count(kind)
        for kind in ("missing", "stale", "ahead", "cold", "foreign")
    }
    ahead = kinds.pop("ahead")
    drift_left = kinds["missing"] + kinds["stale"] + ahead
    legacy = EACH * sum(drift.stored is not None and drift.version is None for drift in DRIFTS.values())
    acknowledged: dict[str, str | None] = {}
    try:
        async with writers(own_stack, acknowledged):
            code, [found], _ = await audit(own_stack, "--mapping", "todos")
            assert {kind: found[kind] for kind in (*kinds, "ahead")} == kinds | {"ahead": ahead}
            assert (code, found["left"], found["repaired"], found["legacy"]) == (1, drift_left, 0, legacy)
            assert found["mapping"] == "todos"
            counted = found["equal"] + found["unsettled"] + sum(kinds.values()) + ahead
            assert found["compared"] == counted >= DOCUMENTS
            assert found["documents_per_second"] == round(found["compared"] / found["seconds"], 1)
            code, reports, said = await audit(own_stack, "--repair", "--mapping", "todos")
            assert len(reports) == 1, said
            [repaired] = reports
            assert (code, repaired["left"]) == (0, 0)
            assert repaired["repaired"] == repaired["missing"] + repaired["stale"] + repaired["ahead"]
            assert {kind: repaired[kind] for kind in kinds} == kinds
            assert repaired["ahead"] == ahead
            code, [again], _ = await audit(own_stack, "--mapping", "todos")
            assert (code, again["left"]) == (0, 0)
            assert [again[kind] for kind in kinds] == [0, 0, kinds["cold"], kinds["foreign"]]
        sides = await both_sides(own_stack)
        await own_stack.set("newer in MongoDB 0", {"n": 3})
        await own_stack.drained()
        assert await own_stack.stored("newer in MongoDB 0") == {"id": "newer in MongoDB 0", "n": 3}, "it took no write"
    finally:
        await worker.kill()
    expected = {i: drift.repaired() for i, drift in drifts.items()}
    expected |= {i: (text, text) for i, text in acknowledged.items()}
    assert {i: (sides.get(i, (None, None)), e) for i, e in expected.items() if sides.get(i, (None, None)) != e} == {}
    assert sides.keys() <= expected.keys()
