"""The proxy that speaks the wire protocol does what it says, and nothing else, on a real server."""

import asyncio
import random
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import anyio
import bson
import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient, CursorType, DeleteOne, InsertOne, ReplaceOne, UpdateOne, WriteConcern
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from tests.support.stack import Stack, eventually
from tests.wire import (
    ANY,
    Command,
    WireProxy,
    apply_then_cut,
    change_reply,
    cut,
    delay,
    delay_answer,
    item_error,
    on,
    reworded,
    top_error,
    without_key_pattern,
    write_concern_error,
)
from tests.wire.message import CHECKSUM, EXHAUST_ALLOWED, OP_MSG, Message, pack

Document = dict[str, Any]
Client = AsyncMongoClient[Document]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def direct(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of the server itself."""
    stack = Stack(tmp_path_factory.mktemp("wire"))
    try:
        await stack.start(stack.mongo)
        yield stack.mongo_client
    finally:
        await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(direct: Client) -> AsyncIterator[WireProxy]:
    """A proxy before the server, with no rules."""
    address = await direct.address
    assert address is not None
    async with WireProxy(address[1]) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="session")
async def client(proxy: WireProxy) -> AsyncIterator[Client]:
    """A client that doesn't try again by itself."""
    async with connect(proxy) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def replica_set(direct: Client) -> None:
    """Skips a test of what drivers do with a replica set only, on a server that is none."""
    if "setName" not in await direct.admin.command("hello"):
        pytest.skip("the server that MONGO names is no replica set")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A collection of the test's own."""
    return str(request.node.name).replace("[", "_").replace("]", "")


def connect(proxy: WireProxy, **options: Any) -> Client:
    return AsyncMongoClient(proxy.uri, **{"retryWrites": False, "retryReads": False, "timeoutMS": 5000} | options)


def upserts(count: int) -> list[ReplaceOne[Document]]:
    return [ReplaceOne({"_id": i}, {"v": "new"}, upsert=True) for i in range(count)]


async def stored(direct: Client, name: str) -> dict[int, Any]:
    return {found["_id"]: found.get("v") async for found in direct.test[name].find().sort("_id", 1)}


@pytest.mark.usefixtures("replica_set")
async def test_the_driver_stays_with_the_proxy(proxy: WireProxy, client: Client) -> None:
    hello = await client.admin.command("hello")
    assert hello["setName"], "the server is a replica set, whose members drivers look for"
    assert hello["hosts"] == [f"127.0.0.1:{proxy.port}"]
    assert await client.address == ("127.0.0.1", proxy.port)
    async with connect(proxy, compressors="zlib") as other:
        assert "compression" not in await other.admin.command("hello")


async def mixed(client: Client, collection: str, seed: int) -> list[Any]:
    """What a few hundred operations answer, without what differs each time."""
    dice = random.Random(seed)
    todos = client.mixed[collection]
    await todos.create_index("u", unique=True)
    answers: list[Any] = []
    for _ in range(300):
        i, n = dice.randrange(40), dice.randrange(1000)
        choice = dice.randrange(8)
        try:
            match choice:
                case 0:
                    answer: Any = (await todos.insert_one({"_id": i, "u": n, "b": bytes(n)})).inserted_id
                case 1:
                    updated = await todos.update_one({"_id": i}, {"$set": {"u": n}}, upsert=True)
                    answer = (updated.matched_count, updated.modified_count, updated.upserted_id)
                case 2:
                    answer = (await todos.delete_one({"_id": i})).deleted_count
                case 3:
                    answer = await todos.find({"u": {"$gt": n}}).batch_size(3).sort("_id").to_list()
                case 4:
                    answer = await todos.find_one_and_replace({"_id": i}, {"u": n})
                case 5:
                    answer = await todos.aggregate([{"$group": {"_id": None, "s": {"$sum": "$u"}}}])
                    answer = await answer.to_list()
                case 6:
                    answer = await todos.count_documents({"u": {"$lt": n}})
                case _:
                    bulk: list[Any] = [InsertOne({"_id": i + k, "u": n - k}) for k in range(5)]
                    bulk += [UpdateOne({"_id": i}, {"$inc": {"u": 1}}), DeleteOne({"u": n})]
                    result = (await todos.bulk_write(bulk, ordered=dice.random() < 0.5)).bulk_api_result
                    answer = {k: v for k, v in result.items() if k != "writeConcernErrors"}
        except BulkWriteError as error:
            answer = [(e["index"], e["code"], e.get("keyPattern")) for e in error.details["writeErrors"]]
        except OperationFailure as error:
            answer = (type(error), error.code)
        answers.append(answer)
    return [*answers, await todos.find().sort("_id").to_list()]


async def test_without_rules_nothing_is_changed(direct: Client, proxy: WireProxy, client: Client) -> None:
    assert await mixed(client, "through", 14) == await mixed(direct, "straight", 14)
    assert {"insert", "update", "delete", "find", "getMore", "findAndModify", "aggregate"} <= set(proxy.counts)


async def test_large_writes_and_several_connections(direct: Client, client: Client, name: str) -> None:
    await client.test[name].bulk_write([InsertOne({"_id": i, "v": "x" * 4000}) for i in range(550)])

    async def read() -> int:
        return sum([len(found["v"]) async for found in client.test[name].find().batch_size(100)])

    assert await asyncio.gather(*(read() for _ in range(10))) == [2_200_000] * 10
    assert len(await stored(direct, name)) == 550


async def test_writes_that_nobody_waits_for_pass(direct: Client, client: Client, name: str) -> None:
    unconfirmed = client.test[name].with_options(write_concern=WriteConcern(w=0))
    await unconfirmed.insert_one({"_id": 1})
    await client.test[name].insert_one({"_id": 2})
    assert await eventually(lambda: direct.test[name].count_documents({"_id": 1}))


@pytest.mark.parametrize("ordered", [False, True])
async def test_items_fail_and_the_others_are_done(
    direct: Client, proxy: WireProxy, client: Client, name: str, ordered: bool
) -> None:
    await direct.test[name].insert_one({"_id": 3, "v": "old"})
    extra = {"keyPattern": {"mail": 1}}
    with (
        proxy.rule(on("update", name).each(), item_error(121, errmsg="no", index=(1, 4), extra=extra)),
        pytest.raises(BulkWriteError) as caught,
    ):
        await client.test[name].bulk_write(upserts(6), ordered=ordered)
    details = caught.value.details
    failed = [(e["index"], e["code"], e["errmsg"], e["keyPattern"]) for e in details["writeErrors"]]
    assert failed == [(i, 121, "no", {"mail": 1}) for i in ([1] if ordered else [1, 4])]
    done = [0] if ordered else [0, 2, 3, 5]
    assert await stored(direct, name) == dict.fromkeys(done, "new") | {3: "old" if ordered else "new"}
    upserted = [i for i in done if i != 3]
    assert [(u["index"], u["_id"]) for u in details["upserted"]] == [(i, i) for i in upserted]
    matched = len(done) - len(upserted)
    assert (details["nMatched"], details["nModified"], details["nUpserted"]) == (matched, matched, len(upserted))


async def test_the_servers_own_errors_are_kept(direct: Client, proxy: WireProxy, client: Client, name: str) -> None:
    await direct.test[name].insert_one({"_id": 3})
    with proxy.rule(on("insert", name), item_error(66, index=1)), pytest.raises(BulkWriteError) as caught:
        await client.test[name].insert_many([{"_id": i} for i in range(5)], ordered=False)
    assert [(e["index"], e["code"]) for e in caught.value.details["writeErrors"]] == [(1, 66), (3, 11000)]
    assert list(await stored(direct, name)) == [0, 2, 3, 4]


@pytest.mark.parametrize("applied", [False, True])
async def test_a_command_fails(direct: Client, proxy: WireProxy, client: Client, name: str, applied: bool) -> None:
    error = top_error(8000, name="AtlasError", labels=["RetryableWriteError"], applied=applied)
    with proxy.rule(on("insert", name), error), pytest.raises(OperationFailure) as caught:
        await client.test[name].insert_one({"_id": 1, "v": "new"})
    assert caught.value.code == 8000
    assert (caught.value.details or {})["codeName"] == "AtlasError"
    assert caught.value.has_error_label("RetryableWriteError")
    assert await stored(direct, name) == ({1: "new"} if applied else {})


async def test_a_write_is_not_confirmed(direct: Client, proxy: WireProxy, client: Client, name: str) -> None:
    with proxy.rule(on("insert", name), write_concern_error(64, name="WriteConcernTimeout")):
        with pytest.raises(WriteConcernError) as caught:
            await client.test[name].insert_one({"_id": 1, "v": "new"})
        with pytest.raises(BulkWriteError) as bulk:
            await client.test[name].bulk_write([InsertOne({"_id": 2, "v": "new"})])
    assert caught.value.code == 64
    assert [error["code"] for error in bulk.value.details["writeConcernErrors"]] == [64]
    assert await stored(direct, name) == {1: "new", 2: "new"}


@pytest.mark.parametrize("applied", [False, True])
async def test_the_connection_breaks(
    direct: Client, proxy: WireProxy, client: Client, name: str, applied: bool
) -> None:
    with proxy.rule(on("insert", name), cut(applied=applied)), pytest.raises(AutoReconnect):
        await client.test[name].insert_one({"_id": 1, "v": "new"})
    assert await stored(direct, name) == ({1: "new"} if applied else {})


@pytest.mark.usefixtures("replica_set")
async def test_a_part_is_done_and_the_answer_lost(direct: Client, proxy: WireProxy, client: Client, name: str) -> None:
    with proxy.rule(on("update", name), apply_then_cut((0, 2))), pytest.raises(AutoReconnect):
        await client.test[name].bulk_write(upserts(4), ordered=False)
    assert list(await stored(direct, name)) == [0, 2]
    async with connect(proxy, retryWrites=True) as trying:
        with proxy.rule(on("update", name).nth(1), apply_then_cut(3)) as rule:
            await trying.test[name].bulk_write(upserts(4), ordered=False)
    assert (rule.fitting, rule.hits) == (2, 1)
    assert list(await stored(direct, name)) == [0, 1, 2, 3]


@pytest.mark.usefixtures("replica_set")
@pytest.mark.parametrize(
    "action", [cut(), cut(applied=True), top_error(189, labels=["RetryableWriteError"])], ids=["cut", "lost", "error"]
)
async def test_a_driver_that_tries_again_succeeds(direct: Client, proxy: WireProxy, name: str, action: Any) -> None:
    async with connect(proxy, retryWrites=True) as trying:
        with proxy.rule(on("update", name).next(1), action) as rule:
            await trying.test[name].update_one({"_id": 1}, {"$set": {"v": 1}}, upsert=True)
    assert rule.fitting == 2
    assert await stored(direct, name) == {1: 1}


def test_every_form_of_a_write_is_understood() -> None:
    body = {"insert": "todos", "documents": [{"_id": i} for i in range(3)], "ordered": False, "$db": "test"}
    flags, section = (CHECKSUM | EXHAUST_ALLOWED).to_bytes(4, "little"), b"\0" + bson.encode(body)
    data = pack(7, 0, OP_MSG, flags + section + b"\xff\xff\xff\xff")
    command = Command.parse(Message(data, 7, 0, OP_MSG))
    assert command is not None
    assert (command.name, command.database, command.collection, command.ordered) == ("insert", "test", "todos", False)
    assert command.items == body["documents"]
    part = Command.parse(Message(command.packed_with([0, 2]), 7, 0, OP_MSG))
    assert part is not None
    assert part.items == [{"_id": 0}, {"_id": 2}]
    assert part.message.flags == 0, "what is answered once, without a checksum"


async def test_delays(direct: Client, proxy: WireProxy, client: Client, name: str) -> None:
    for i, action in enumerate([delay(0.2), delay_answer(0.2), delay(0.2, write_concern_error(64))]):
        started = monotonic()
        with proxy.rule(on("insert", name).next(), action):
            try:
                await client.test[name].insert_one({"_id": i})
            except WriteConcernError:
                assert i == 2
        assert monotonic() - started >= 0.2
    with proxy.rule(on("insert", name), delay(0.4)):
        async with connect(proxy, timeoutMS=100) as hasty:
            with pytest.raises(PyMongoError):
                await hasty.test[name].insert_one({"_id": 9})
    assert 9 not in await stored(direct, name)
    assert await eventually(lambda: direct.test[name].count_documents({"_id": 9})), "late, after the client hung up"


async def test_frozen_until_thawed(direct: Client, proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_one({"_id": 1})
    proxy.freeze()
    async with anyio.create_task_group() as tasks, connect(proxy) as other:
        tasks.start_soon(client.test[name].insert_one, {"_id": 2})
        tasks.start_soon(other.test[name].insert_one, {"_id": 3})
        await anyio.sleep(0.3)
        assert list(await stored(direct, name)) == [1]
        before = proxy.counts["insert"]
        proxy.thaw()
        await eventually(lambda: direct.test[name].count_documents({"_id": 3}))
    assert list(await stored(direct, name)) == [1, 2, 3]
    assert proxy.counts["insert"] == before + 1, "the other one's connection was held up as a whole"


async def test_down_and_up(proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_one({"_id": 1})
    proxy.down()
    async with connect(proxy, timeoutMS=300) as other:
        with pytest.raises(AutoReconnect, match=r"Connect call failed|No servers found"):
            await other.admin.command("ping")
    await proxy.up()
    await client.test[name].find_one()
    proxy.cut()
    async with connect(proxy) as other:
        await other.admin.command("ping")


async def test_replies_are_changed(proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_one({"_id": 1})

    async def duplicate() -> Document:
        with pytest.raises(BulkWriteError) as caught:
            await client.test[name].insert_many([{"_id": 0}, {"_id": 1}, {"_id": 0}], ordered=False)
        return dict(caught.value.details["writeErrors"][-1])

    assert {"keyPattern", "keyValue"} <= set(await duplicate())
    with proxy.rule(on("insert", name), change_reply(without_key_pattern)):
        assert not {"keyPattern", "keyValue"} & set(await duplicate())
    with proxy.rule(on("insert", name), change_reply(reworded(str.upper))):
        assert (await duplicate())["errmsg"].startswith("E11000 DUPLICATE KEY")
    old = change_reply(lambda hello: hello | {"minWireVersion": 0, "maxWireVersion": 3})
    async with connect(proxy) as other:
        with proxy.rule(on("hello"), old), pytest.raises(PyMongoError, match="wire version 3"):
            await other.admin.command("ping")


async def test_whose_turn_it_is(proxy: WireProxy, client: Client, name: str) -> None:
    async def failures(chosen: Any, count: int = 6) -> list[int]:
        failed = []
        with proxy.rule(chosen, top_error(1)):
            for i in range(count):
                try:
                    await client.test[name].count_documents({"i": i})
                except OperationFailure:
                    failed.append(i)
        return failed

    any_of_it = on(ANY, name)
    assert await failures(any_of_it) == [0, 1, 2, 3, 4, 5]
    assert await failures(any_of_it.nth(3)) == [2]
    assert await failures(any_of_it.next(2)) == [0, 1]
    assert await failures(on("count", "other")) == []
    assert await failures(on(("aggregate", "count"), lambda collection: collection == name).next()) == [0]
    where_4 = any_of_it.where(lambda command: {"$match": {"i": 4}} in command.body["pipeline"])
    assert await failures(where_4) == [4]
    drawn = await failures(any_of_it.sometimes(0.5, seed=1), 40)
    assert 10 < len(drawn) < 30
    assert drawn == await failures(any_of_it.sometimes(0.5, seed=1), 40)


async def test_a_cursor_breaks_on_the_way(proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_many([{"_id": i} for i in range(10)])
    with proxy.rule(on("getMore", name).nth(2), top_error(43, name="CursorNotFound")):
        cursor = client.test[name].find().batch_size(3)
        assert [(await anext(cursor))["_id"] for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        with pytest.raises(CursorNotFound):
            await anext(cursor)


async def test_cursors_whose_batches_come_unasked_pass(proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_many([{"_id": i} for i in range(10)])
    cursor = client.test[name].find(cursor_type=CursorType.EXHAUST).batch_size(3)
    assert [found["_id"] async for found in cursor] == list(range(10))
    assert proxy.counts["getMore"] == 1
    with proxy.rule(on("getMore", name), delay(0)) as rule:
        cursor = client.test[name].find(cursor_type=CursorType.EXHAUST).batch_size(3)
        assert [found["_id"] async for found in cursor] == list(range(10))
    assert rule.hits == 3, "a command that a rule is for is answered once"


async def test_what_went_through_is_counted(proxy: WireProxy, client: Client, name: str) -> None:
    await client.test[name].insert_many([{"_id": i} for i in range(3)])
    for _ in range(5):
        await client.test[name].find_one()
    assert (proxy.counts["insert"], proxy.counts["find"]) == (1, 5)
    first = proxy.recorded[0]
    assert (first.name, first.database, first.collection, first.items) == ("insert", "test", name, 3)
    assert proxy.traffic.peak(collection=name, seconds=30) == 6
    assert proxy.traffic.peak(names=["insert"], seconds=30) == 1
    proxy.traffic.reset()
    assert not proxy.counts
    assert proxy.traffic.peak() == 0


async def test_databases_are_named_otherwise(direct: Client, name: str) -> None:
    address = await direct.address
    assert address is not None

    def rename(database: str) -> str:
        return database if database == "admin" or "ours_" in database else f"ours_{database}"

    async with WireProxy(address[1], rename=rename) as proxy, connect(proxy) as client:
        await client.test[name].insert_many([{"_id": i} for i in range(10)])
        await client.other[name].insert_one({"_id": 0})
        cursor = client.test[name].find({"at": {"$ne": {"$ref": name, "$id": 1, "$db": "test"}}}).batch_size(3)
        assert [found["_id"] async for found in cursor] == list(range(10))
        assert [found async for found in direct.ours_other[name].find()] == [{"_id": 0}]
        assert await direct.ours_test[name].count_documents({}) == 10
        assert not {"test", "other"} & {
            found for found in await direct.list_database_names() if name in await direct[found].list_collection_names()
        }
