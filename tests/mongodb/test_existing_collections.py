"""Collections that are there already: what does is taken as it is, what doesn't is named with its remedy."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pymongo
import pytest
import pytest_asyncio

from tests.support.stack import Stack, eventually
from tests.wire import WireProxy, change_reply, delay_answer, on, top_error
from tests.wire.actions import pass_on
from tests.wire.command import Command

Document = dict[str, Any]

ENGLISH = {"locale": "en", "strength": 2}
BUILD = 5.0
"""Seconds that a build takes here: more than twice the deadline of an operation."""


@pytest_asyncio.fixture(loop_scope="session")
async def servers(own_stack: Stack) -> AsyncIterator[Stack]:
    """Redis and MongoDB, and no worker yet."""
    await own_stack.start(own_stack.redis, own_stack.mongo)
    yield own_stack


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(servers: Stack) -> AsyncIterator[WireProxy]:
    """Between MongoDB on one side, worker and API on the other."""
    async with WireProxy(servers.setup.mongo_port) as proxy:
        servers.worker = servers.another_worker("worker", MONGO_URI=proxy.uri)
        servers.api = servers.another_api("api", servers.setup.port, MONGO_URI=proxy.uri)
        yield proxy


def answered(stack: Stack, state: str) -> Callable[[], Awaitable[str]]:
    """The reason that `/readyz` gives while the worker is in this state."""

    async def ask() -> str:
        checks = (await stack.client.get("/readyz")).json().get("checks", {})
        said, _, reason = str(checks.get("worker:todos", "")).partition(": ")
        return reason if said == state else ""

    return ask


async def works(stack: Stack) -> None:
    """A document is stored, replaced and deleted, by a worker that came to be ready without a restart."""
    await stack.worker.wait_ready()
    for n in (1, 2):
        assert (await stack.client.put("/todos/a", json={"name": f"{n}"})).status_code in (200, 201)
    assert await stack.stored("a") == {"id": "a", "name": "2"}
    assert (await stack.client.delete("/todos/a")).status_code == 204
    assert await stack.stored("a") is None


async def start(stack: Stack) -> None:
    await stack.worker.start(wait=False)
    await stack.api.start()


async def unique_on_id(stack: Stack) -> list[str]:
    found = await stack.todos.index_information()
    return [name for name, index in found.items() if index["key"] == [("id", 1)] and index.get("unique")]


async def test_commits_wait_for_a_long_build_which_begins_once(servers: Stack, proxy: WireProxy) -> None:
    await servers.todos.insert_one({"name": "somebody's"})
    progress = [{"command": {"createIndexes": "todos", "$db": "test"}, "progress": {"done": 37, "total": 100}}]
    proxy.add(on("currentOp"), change_reply(lambda reply: reply | {"inprog": progress}))
    build = proxy.add(on("createIndexes", "todos").next(), delay_answer(BUILD))
    await start(servers)
    reason = await eventually(answered(servers, "preparing"))
    assert "building the index 'id_1' of test.todos: 37% of its present phase, " in reason
    written = await servers.client.put("/todos/b", json={"name": "b"})
    assert written.status_code == 504
    assert await servers.stored("b") is None
    await works(servers)
    assert await servers.stored("b") == {"id": "b", "name": "b"}
    builds = [seen for seen in proxy.recorded if (seen.name, seen.collection) == ("createIndexes", "todos")]
    assert build.hits == 1
    assert len([seen for seen in builds if seen.at < builds[0].at + BUILD]) == 1, "asked for once while it was built"


async def test_a_commit_that_is_tried_again_waits_for_a_build_too(servers: Stack, proxy: WireProxy) -> None:
    await start(servers)
    await servers.worker.wait_ready()
    build = proxy.add(on("createIndexes", "todos"), delay_answer(BUILD))
    proxy.add(on("update", "todos").next(), top_error(91, name="ShutdownInProgress"))
    await servers.client.put("/todos/b", json={"name": "b"}, headers={"Prefer": "respond-async"})
    await eventually(answered(servers, "preparing"))
    proxy.remove(build)
    await works(servers)
    assert await servers.stored("b") == {"id": "b", "name": "b"}


async def test_a_worker_ends_while_an_index_is_built(servers: Stack, proxy: WireProxy) -> None:
    proxy.add(on("createIndexes", "todos"), delay_answer(60))
    await start(servers)
    await eventually(answered(servers, "preparing"))
    assert await servers.worker.stop() < 5


async def test_without_the_right_to_ask_how_far_a_build_is_its_time_is_said(servers: Stack, proxy: WireProxy) -> None:
    proxy.add(on("currentOp"), top_error(13, name="Unauthorized"))
    proxy.add(on("createIndexes", "todos").next(), delay_answer(BUILD))
    await start(servers)
    reason = await eventually(answered(servers, "preparing"))
    assert reason.startswith("building the index 'id_1' of test.todos: ")
    assert "phase" not in reason
    await works(servers)


@pytest.mark.parametrize("code", [67, 2])
async def test_a_server_without_ttl_indexes_will_do(servers: Stack, proxy: WireProxy, code: int) -> None:
    proxy.add(on("createIndexes", "sync_tombstones"), top_error(code))
    proxy.add(on("createIndexes", "sync_dead_letters"), top_error(code))
    await start(servers)
    await works(servers)
    await eventually(lambda: said(servers, "MongoDB doesn't delete tombstones", "dead letters are found slowly"))


async def test_a_ttl_index_with_another_expiry_is_left_and_said_once(servers: Stack) -> None:
    await servers.mongo_client.test.sync_tombstones.create_index("at", expireAfterSeconds=5)
    await start(servers)
    await works(servers)
    await eventually(lambda: said(servers, 'db.sync_tombstones.dropIndex({\\"at\\": 1})'))
    await servers.redis_client.delete("sync:{todos}:lease", "sync:{notes}:lease")  # so that they begin again
    await eventually(lambda: said(servers, "holding the lease", times=4))
    await works(servers)
    assert await said(servers, "MongoDB doesn't delete tombstones", times=2), "once for each mapping"
    assert not await said(servers, "MongoDB doesn't delete tombstones", times=3)


@pytest.mark.parametrize(
    "index",
    [
        {"keys": "id", "name": "theirs"},
        {"keys": [("id", -1)]},
        {"keys": "id", "sparse": True},
        {"keys": "id", "sparse": True, "name": "theirs"},
    ],
    ids=["another name", "descending", "sparse", "sparse, another name"],
)
async def test_a_unique_index_on_the_id_is_taken_as_it_is(servers: Stack, index: Document) -> None:
    keys = index.pop("keys")
    name = await servers.todos.create_index(keys, unique=True, **index)
    before = await servers.todos.index_information()
    if "sparse" in index:
        await servers.todos.insert_many([{"name": "without an id"}, {"name": "without one either"}])
    await start(servers)
    await works(servers)
    assert await servers.todos.index_information() == before
    assert name in before


async def test_a_unique_index_is_taken_without_the_right_to_make_one(servers: Stack, proxy: WireProxy) -> None:
    await servers.todos.create_index("id", unique=True)
    proxy.add(on("createIndexes", "todos"), top_error(13, name="Unauthorized"))
    await start(servers)
    await works(servers)


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ({}, "isn't unique"),
        ({"unique": True, "partialFilterExpression": {"name": "x"}}, "is partial"),
        ({"unique": True, "collation": ENGLISH}, "has the collation 'en'"),
    ],
    ids=["not unique", "partial", "collation"],
)
async def test_an_index_in_the_way_is_named_and_once_dropped_all_goes_on(
    servers: Stack, index: Document, fault: str
) -> None:
    await servers.todos.create_index("id", **index)
    await start(servers)
    reason = await eventually(answered(servers, "blocked"))
    assert f"the index 'id_1' of test.todos {fault}" in reason
    assert reason.endswith('db.todos.dropIndex("id_1")')
    await servers.todos.drop_index("id_1")
    await works(servers)
    assert await unique_on_id(servers) == ["id_1"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"capped": True, "size": 1_000_000}, "is capped"),
        ({"timeseries": {"timeField": "t"}}, "is a time series"),
        ({"viewOn": "all", "pipeline": []}, "is a view, which nobody can write to; map what it shows: test.all"),
    ],
    ids=["capped", "time series", "view"],
)
async def test_an_unfit_collection_blocks_its_mapping_alone(servers: Stack, options: Document, fault: str) -> None:
    await servers.mongo_client.test.create_collection("todos", **options)
    await start(servers)
    assert f"test.todos {fault}" in await eventually(answered(servers, "blocked"))
    assert (await servers.client.put("/notes/a", json={})).status_code == 201
    overview = (await servers.client.get("/sync")).json()["mappings"]
    assert fault in overview["todos"]["collection"]["unfit"]
    assert overview["notes"]["collection"]["unfit"] is None
    assert await servers.stored("a") is None
    await servers.todos.drop()
    await works(servers)


@pytest.mark.parametrize("key", [{"_id": "hashed"}, {"tenant": 1}, {"id": 1, "tenant": 1}], ids=str)
async def test_sharded_by_another_key_than_the_id(servers: Stack, proxy: WireProxy, key: Document) -> None:
    sharding = proxy.add(on("find", "collections"), change_reply(sharded_by(key)))
    await start(servers)
    reason = await eventually(answered(servers, "blocked"))
    assert reason.endswith('sh.reshardCollection("test.todos", {"id": "hashed"})')
    assert not proxy.counts["update"], "nothing is written that would be refused"
    proxy.remove(sharding)
    await works(servers)


@pytest.mark.parametrize("code", [13, 59, 8000])
async def test_what_may_not_be_asked_keeps_nothing_from_working(servers: Stack, proxy: WireProxy, code: int) -> None:
    for command in (on(["listCollections", "listIndexes", "currentOp"]), on("find", "collections")):
        proxy.add(command, top_error(code))
    await start(servers)
    await works(servers)
    found = (await servers.client.get("/sync")).json()["mappings"]["todos"]["collection"]
    assert set(found["unknown"]) == {"options", "indexes", "sharding"}
    assert (found["kind"], found["unfit"]) == (None, None)


async def test_an_index_in_the_way_that_nobody_may_look_at(servers: Stack, proxy: WireProxy) -> None:
    await servers.todos.create_index("id")
    proxy.add(on(["listCollections", "listIndexes"]), top_error(13, name="Unauthorized"))
    await start(servers)
    assert "db.todos.getIndexes()" in await eventually(answered(servers, "blocked"))
    await servers.todos.drop_index("id_1")
    await works(servers)


async def test_a_default_collation_is_reported_and_not_used_for_the_id(servers: Stack, proxy: WireProxy) -> None:
    await servers.mongo_client.test.create_collection("todos", collation=ENGLISH)
    proxy.add(on("listIndexes", "todos"), change_reply(as_mongodb_lists_indexes))
    built = proxy.add(on("createIndexes", "todos").where(of_the_id_alone_exactly), delay_answer(0))
    await start(servers)
    await works(servers)
    assert built.hits
    assert await unique_on_id(servers) == ["id_1"]
    assert (await servers.client.get("/sync")).json()["mappings"]["todos"]["collection"]["collation"] == "en"
    assert await said(servers, "the default collation 'en'")


async def test_a_default_collation_that_takes_ids_for_one_blocks(own_stack: Stack) -> None:
    stack = own_stack
    await stack.start(stack.redis, stack.mongo)
    await stack.mongo_client.test.create_collection("todos", collation=ENGLISH)
    mappings = "todos=test.todos:_id"
    stack.worker, stack.api = stack.worker.armed(MAPPINGS=mappings), stack.api.armed(MAPPINGS=mappings)
    await start(stack)
    assert "takes different ids for one" in await eventually(answered(stack, "blocked"))


async def test_what_may_refuse_documents_is_listed(servers: Stack) -> None:
    rule = {"$jsonSchema": {"properties": {"n": {"bsonType": "string"}}}}
    await servers.mongo_client.test.create_collection("todos", validator=rule)
    await servers.todos.create_index(
        [("slug", 1), ("tenant", 1)], unique=True, name="slugs", partialFilterExpression={"slug": {"$exists": True}}
    )
    await servers.todos.create_index("plain")
    await start(servers)
    await works(servers)
    found = (await servers.client.get("/sync")).json()["mappings"]
    assert found["todos"]["collection"] == {
        "kind": "collection",
        "capped": False,
        "collation": None,
        "shard_key": None,
        "validator": {"fields": ["n"], "level": "strict", "action": "error"},
        "unique_indexes": [{"name": "slugs", "fields": ["slug", "tenant"]}],
        "unfit": None,
        "unknown": {},
    }
    assert found["notes"]["collection"]["unique_indexes"] == []


async def test_an_index_dropped_meanwhile_and_made_otherwise_blocks(servers: Stack) -> None:
    await start(servers)
    await works(servers)
    await servers.todos.drop_index("id_1")
    try:
        await servers.todos.create_index("id")
    except pymongo.errors.OperationFailure:  # the worker was faster
        await servers.todos.drop_index("id_1")
        await servers.todos.create_index("id")
    await eventually(answered(servers, "blocked"))
    await servers.todos.drop_index("id_1")
    await works(servers)


def sharded_by(key: Document) -> Callable[[Document], None]:
    def change(reply: Document) -> None:
        reply["cursor"]["firstBatch"] = [{"_id": "test.todos", "key": key}]

    return change


def as_mongodb_lists_indexes(reply: Document) -> None:
    """With the collection's default collation at its index on `_id`, and without that of bytes."""
    for index in reply["cursor"]["firstBatch"]:
        if index["key"] == {"_id": 1}:
            index["collation"] = ENGLISH
        elif index.get("collation") == {"locale": "simple"}:
            del index["collation"]


def of_the_id_alone_exactly(command: Command) -> bool:
    return bool(command.body["indexes"][0].get("collation") == {"locale": "simple"})


async def said(stack: Stack, *texts: str, times: int = 1) -> bool:
    """Whether the worker's log has each of these texts as often as that."""
    log = stack.worker.log.read_text()
    return all(log.count(text) >= times for text in texts)


async def test_ids_are_exact_where_the_collection_ignores_case(servers: Stack, proxy: WireProxy) -> None:
    """Every operation that finds documents by id says how strings are compared."""
    await servers.mongo_client.test.create_collection("todos", collation=ENGLISH)
    unsaid = proxy.add(on(("find", "update", "delete"), "todos").where(lambda c: not says_simple(c)), pass_on)
    await start(servers)
    await works(servers)
    for document_id in ("User1", "user1"):
        assert (await servers.client.put(f"/todos/{document_id}", json={"name": document_id})).status_code == 201
    await servers.redis_client.delete("todos:user1")
    await servers.drained()
    assert (await servers.client.get("/todos/User1")).json()["name"] == "User1"
    assert (await servers.client.get("/todos/user1")).status_code == 404
    assert [item["id"] for item in (await servers.client.get("/todos")).json()["items"] if "ser1" in item["id"]] == [
        "User1"
    ]
    assert unsaid.hits == 0


def says_simple(command: Command) -> bool:
    parts = [command.body] if command.name == "find" else command.items
    return all((part.get("collation") or {}).get("locale") == "simple" for part in parts)
