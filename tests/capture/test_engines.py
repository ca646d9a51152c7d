"""What every engine does alike, on every kind of server that has one."""

import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import anyio
import pytest
import pytest_asyncio
from redis.exceptions import ResponseError

from gears.contract.entries import BACKFILL, Entry
from gears.contract.mapping import Mapping
from gears.contract.redis_names import TICKET_TTL, Names
from gears.contract.write_tokens import EntryId
from gears.engines import Absent, Any_, Engine, Equals, Present, open_engine
from gears.engines.detect import detect
from gears.errors import (
    BacklogFull,
    CaptureMissing,
    ForeignKey,
    LeaseLost,
    PreconditionFailed,
    RedisRefused,
    Rewound,
    Unchecked,
)
from gears.in_redis.client import connect
from gears.progress.set_aside_entries import value_of
from tests.support.engines import ALL_KINDS, KindStack, leased, uncaptured
from tests.support.stack import eventually

NAMES = Names("todos")
LIMIT = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ALL_KINDS)
async def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KindStack]:
    """A server of this kind, MongoDB and, unless a test stops it, a worker."""
    stack = KindStack(tmp_path_factory.mktemp("kind"), request.param)
    try:
        await stack.start_redis()
        await stack.start(stack.mongo)
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine(system: KindStack) -> AsyncIterator[Engine]:
    """The engine that this server is found to have, its recipe installed, nobody committing."""
    if system.worker.running:
        await system.worker.stop()
    await system.redis_client.flushall()
    async with connect(system.redis_url, timeout=5) as redis:
        engine = await open_engine(redis, Mapping("todos", "test", "todos"))
        await engine.install()
        await checked(engine)
        yield engine


async def checked(engine: Engine, life: str | None = None) -> None:
    """Say that in this life, by default the present one, Redis has forgotten nothing."""
    await engine.redis.set(NAMES.checked, await engine.life() if life is None else life)


@pytest_asyncio.fixture(loop_scope="session")
async def working(system: KindStack) -> KindStack:
    """The system with a worker that commits."""
    if not system.worker.running:
        await system.worker.start()
    return system


async def entries(engine: Engine) -> list[dict[str, Any]]:
    found: Any = await engine.redis.xrange(NAMES.stream)
    return [{k.decode(): v.decode() for k, v in fields.items() if k != b"l"} for _, fields in found]


async def put(engine: Engine, document_id: str, document: object) -> EntryId:
    written = await engine.put(document_id, json.dumps(document).encode(), Any_(), backlog_limit=LIMIT)
    return written.token.id


async def get(engine: Engine, document_id: str) -> Any:
    text = await engine.redis.execute_command("JSON.GET", engine.mapping.key(document_id))
    return None if text is None else json.loads(text)


async def test_the_server_is_found_to_have_this_engine(system: KindStack, engine: Engine) -> None:
    assert await detect(engine.redis) == system.kind.engine == engine.name


async def test_what_redis_may_have_forgotten_is_no_condition(engine: Engine) -> None:
    await put(engine, "1", {})
    await checked(engine, "another life")
    before = await entries(engine)
    with pytest.raises(Unchecked):
        await engine.put("1", b"{}", Equals(b"{}"), backlog_limit=LIMIT)
    with pytest.raises(Unchecked):
        await engine.delete("1", Equals(b"{}"), backlog_limit=LIMIT)
    with pytest.raises(Unchecked):
        await engine.put("2", b"{}", Absent(), backlog_limit=LIMIT)
    assert not await engine.backfill(b"todos:1", BACKFILL, life=await engine.life())
    assert await entries(engine) == before
    await put(engine, "1", {"without": "a condition"})


async def test_installing_again_changes_nothing(engine: Engine) -> None:
    assert (await engine.status()).working
    assert not await engine.install()
    assert (await engine.status()).working


async def test_a_write_without_the_recipe_is_not_made(engine: Engine) -> None:
    assert await engine.remove()
    status = await engine.status()
    assert not status.installed
    assert "writethrough recipe install" in str(status.problem)
    with pytest.raises(CaptureMissing):
        await put(engine, "1", {})
    assert not await engine.redis.exists("todos:1")
    assert not await engine.remove()
    assert await engine.install()
    await put(engine, "1", {})


async def test_put_stores_the_document_and_adds_one_entry(engine: Engine) -> None:
    first = await engine.put("1", b'{"a": -5}', Absent(), backlog_limit=LIMIT)
    assert (first.existed, json.loads(first.document)) == (False, {"a": -5})
    second = await engine.put("1", '{"ä": "😀 it\'s"}'.encode(), Equals(first.document), backlog_limit=LIMIT)
    assert (second.existed, json.loads(second.document)) == (True, {"ä": "😀 it's"})
    assert second.token.id > first.token.id
    assert await entries(engine) == [{"k": "todos:1", "e": "json.set"}] * 2
    reply: Any = await engine.redis.xrevrange(NAMES.stream, count=1)
    [(newest, fields)] = reply
    assert EntryId.parse(newest) == second.token.id
    assert fields[b"l"].decode() == second.token.life == await engine.life()


@pytest.mark.parametrize("condition", [Present(), Equals(b"{}")])
async def test_put_asks_for_a_key_that_is_there(engine: Engine, condition: Present | Equals) -> None:
    with pytest.raises(PreconditionFailed):
        await engine.put("1", b"{}", condition, backlog_limit=LIMIT)
    assert await entries(engine) == []


@pytest.mark.parametrize("condition", [Absent(), Equals(b"{}")])
async def test_put_asks_for_a_key_that_is_absent_or_as_it_was(engine: Engine, condition: Absent | Equals) -> None:
    await put(engine, "1", {"a": 1})
    with pytest.raises(PreconditionFailed):
        await engine.put("1", b"{}", condition, backlog_limit=LIMIT)
    assert await get(engine, "1") == {"a": 1}


async def test_a_document_that_redis_refuses_leaves_no_trace(engine: Engine) -> None:
    with pytest.raises(RedisRefused):
        await engine.put("1", b"{no JSON", Any_(), backlog_limit=LIMIT)
    assert await entries(engine) == []
    assert not await engine.redis.exists("todos:1")


async def test_a_key_of_another_type_is_left_alone(engine: Engine) -> None:
    await engine.redis.set("todos:1", "mine")
    with pytest.raises(ForeignKey):
        await put(engine, "1", {})
    with pytest.raises(ForeignKey):
        await engine.delete("1", Any_(), backlog_limit=LIMIT)
    assert await engine.redis.get("todos:1") == b"mine"


async def test_a_full_backlog_takes_no_more(engine: Engine) -> None:
    await put(engine, "1", {})
    with pytest.raises(BacklogFull):
        await engine.put("2", b"{}", Any_(), backlog_limit=1)
    with pytest.raises(BacklogFull):
        await engine.delete("1", Any_(), backlog_limit=1)
    assert await engine.redis.exists("todos:1", "todos:2") == 1


@pytest.mark.parametrize("there", [True, False])
async def test_delete_leaves_one_entry_and_a_mark_of_it(engine: Engine, *, there: bool) -> None:
    if there:
        await put(engine, "1", {})
        await engine.redis.xtrim(NAMES.stream, maxlen=0)
    deleted = await engine.delete("1", Any_(), backlog_limit=LIMIT)
    assert deleted.existed == there
    assert not await engine.redis.exists("todos:1")
    assert await entries(engine) == [{"k": "todos:1", "e": "del"}]
    assert await engine.redis.get(NAMES.gone + "1") == str(deleted.token.id).encode()


async def ticket(engine: Engine, document_id: str) -> bytes:
    given = await engine.ticket(document_id)
    assert given
    return given


async def test_fill_gives_redis_the_document_and_says_so(engine: Engine) -> None:
    filled = await engine.fill("1", b'{"a":1}', version=5, ticket=await ticket(engine, "1"))
    assert json.loads(filled or b"") == {"a": 1}
    assert await entries(engine) == [{"k": "todos:1", "e": "fill", "v": "5"}]


async def test_there_is_no_ticket_for_what_redis_holds_or_waits_to_be_committed(engine: Engine) -> None:
    await put(engine, "there", {})
    await engine.redis.xtrim(NAMES.stream, maxlen=0)
    assert await engine.ticket("there") is None
    await put(engine, "pending", {})
    await evict(engine, "pending")
    await engine.delete("deleted", Any_(), backlog_limit=LIMIT)
    assert await engine.ticket("pending") is None
    assert await engine.ticket("deleted") is None
    await ticket(engine, "another")
    for n in range(200):
        await put(engine, str(n), {})
    assert await engine.ticket("another") is None, "so many entries are not searched"


async def test_there_is_no_ticket_for_what_is_set_aside(engine: Engine) -> None:
    plain = Entry(EntryId(5, 0), b"todos:a b", "json.set")
    for entry in (plain, Entry(EntryId(6, 0), b"todos:2", "del"), replace(plain, key=b"todos:3", document=b'{"a": 1}')):
        await engine.redis.hset(NAMES.aside, mapping={f"{entry.key.hex()}.5-0": value_of(entry)})
    assert await engine.ticket("a b") is None
    assert await engine.ticket("2") is None
    assert await engine.ticket("3") is None
    await ticket(engine, "b")
    await ticket(engine, "another")


async def test_a_ticket_is_shared_used_once_and_ends(engine: Engine) -> None:
    given = await ticket(engine, "1")
    assert await engine.ticket("1") == given
    assert await ticket(engine, "2") != given
    assert (TICKET_TTL - 5) * 1000 < await engine.redis.pttl(NAMES.ticket + "1") <= TICKET_TTL * 1000
    assert await engine.fill("1", b"{}", version=5, ticket=b"another") is None
    assert await engine.fill("1", b"{}", version=5, ticket=given)
    await evict(engine, "1")
    assert await engine.fill("1", b"{}", version=5, ticket=given) is None
    assert await ticket(engine, "1") != given


@pytest.mark.parametrize("write", ["put", "delete", "plain set", "plain delete", "give back"])
async def test_what_was_read_before_a_write_comes_too_late_whatever_became_of_the_key(
    engine: Engine, write: str
) -> None:
    before = await ticket(engine, "1")
    if write == "put":
        await put(engine, "1", {"new": 1})
    elif write == "delete":
        await engine.delete("1", Any_(), backlog_limit=LIMIT)
    elif write == "give back":
        assert await give_back(engine, b'{"new":1}', since=EntryId(1, 0))
    else:
        await plain(engine, write, "1")
    assert await engine.fill("1", b'{"old":1}', version=5, ticket=before) is None
    await engine.redis.xtrim(NAMES.stream, maxlen=0)
    await evict(engine, "1")
    assert await engine.fill("1", b'{"old":1}', version=5, ticket=before) is None
    await ticket(engine, "1")
    assert await engine.fill("1", b'{"old":1}', version=5, ticket=before) is None
    assert not await engine.redis.exists("todos:1")


async def observe(engine: Engine, events: list[tuple[bytes, str]]) -> None:
    await engine.observe(events, token="ours", life=await engine.life())


async def plain(engine: Engine, write: str, document_id: str) -> None:
    """Have a plain client write, and the write captured."""
    key = engine.mapping.key(document_id)
    await engine.redis.execute_command("JSON.SET", key, "$", '{"new":1}')
    if write == "plain delete":
        await engine.redis.delete(key)
    if not engine.captures_plain_clients:
        await engine.redis.set(engine.names.lease, "ours")
        await observe(engine, [(key.encode(), "del" if write == "plain delete" else "json.set")])


async def test_a_delete_that_is_learned_of_after_a_later_write_is_none(engine: Engine) -> None:
    if engine.captures_plain_clients:
        pytest.skip("this engine captures plain clients' writes as they are made")
    await put(engine, "1", {"written": "since"})
    await engine.redis.set(engine.names.lease, "ours")
    await observe(engine, [(b"todos:1", "del"), (b"todos:2", "del")])
    assert [(e["k"], e["e"]) for e in (await entries(engine))[1:]] == [("todos:1", "json.set"), ("todos:2", "del")]


async def evict(engine: Engine, document_id: str) -> None:
    """Take the key away without a trace."""
    key = engine.mapping.key(document_id)
    await engine.redis.pexpire(key, 1)
    await eventually(lambda: _absent(engine, key))


async def _absent(engine: Engine, key: str) -> bool:
    return not await engine.redis.exists(key)


@pytest.mark.parametrize("held", [b'{"held":1}', None])
async def test_roll_back_undoes_what_was_refused(engine: Engine, held: bytes | None) -> None:
    since = await put(engine, "1", {"refused": 1})
    seen = await engine.redis.execute_command("JSON.GET", "todos:1")
    assert await engine.roll_back("1", seen, held, version=5, since=since, life=await engine.life())
    assert await get(engine, "1") == (None if held is None else {"held": 1})
    assert (await entries(engine))[1:] == [{"k": "todos:1", "e": "fill", "v": "5"}]
    assert not await engine.redis.exists(NAMES.gone + "1")


async def test_what_was_seen_in_another_life_is_neither_rolled_back_nor_captured_anew(engine: Engine) -> None:
    since = await put(engine, "1", {"n": 1})
    before, seen = await entries(engine), await engine.redis.execute_command("JSON.GET", "todos:1")
    await engine.redis.set(engine.names.checked, await engine.life())
    assert not await engine.roll_back("1", seen, None, version=5, since=since, life="another")
    assert not await engine.backfill(b"todos:1", BACKFILL, life="another")
    assert await entries(engine) == before
    assert await engine.backfill(b"todos:1", BACKFILL, life=await engine.life())
    assert await engine.roll_back("1", seen, None, version=5, since=since, life=await engine.life())


async def test_roll_back_respects_a_later_write(engine: Engine) -> None:
    since = await put(engine, "1", {"later": 1})
    assert not await engine.roll_back("1", b'{"refused":1}', None, version=5, since=since, life=await engine.life())
    await put(engine, "1", {"later": 1})
    seen = await engine.redis.execute_command("JSON.GET", "todos:1")
    life = await engine.life()
    assert not await engine.roll_back("1", seen, None, version=5, since=since, life=life), "the same is a later write"
    assert await get(engine, "1") == {"later": 1}


async def test_a_plain_write_noticed_after_a_later_delete_changes_nothing(engine: Engine) -> None:
    if engine.captures_plain_clients:
        pytest.skip("this engine captures plain clients' writes as they are made")
    await engine.delete("1", Any_(), backlog_limit=LIMIT)
    before = await entries(engine)
    await engine.redis.set(engine.names.lease, "ours")
    await observe(engine, [(b"todos:1", "json.set"), (b"todos:2", "json.set")])
    assert (await entries(engine))[len(before) :] == [{"k": "todos:2", "e": "json.set"}]


async def test_who_lost_the_lease_notices_nothing(engine: Engine) -> None:
    if engine.captures_plain_clients:
        pytest.skip("this engine captures plain clients' writes as they are made")
    for held in (None, "theirs"):
        if held is not None:
            await engine.redis.set(engine.names.lease, held)
        with pytest.raises(LeaseLost):
            await engine.observe([(b"todos:1", "del")], token="ours", life=await engine.life())
    assert await entries(engine) == []


async def test_what_was_told_of_in_another_life_is_not_noticed(engine: Engine) -> None:
    if engine.captures_plain_clients:
        pytest.skip("this engine captures plain clients' writes as they are made")
    await engine.redis.set(engine.names.lease, "ours")
    with pytest.raises(Rewound):
        await engine.observe([(b"todos:1", "json.set")], token="ours", life="another")
    assert await entries(engine) == []


async def give_back(engine: Engine, document: bytes | None, *, since: EntryId) -> bool:
    async with leased(engine) as token:
        return await engine.give_back("1", document, since=since, token=token, life=await engine.life())


@pytest.mark.parametrize("lost", [b'{"lost":1}', None])
async def test_giving_back_adds_no_entry(engine: Engine, lost: bytes | None) -> None:
    since = await put(engine, "1", {"old": 1})
    assert await give_back(engine, lost, since=since)
    assert await get(engine, "1") == (None if lost is None else {"lost": 1})
    assert len(await entries(engine)) == 1


async def warm(engine: Engine, documents: dict[str, bytes], *, acked: str = "7 0-0") -> int | None:
    async with leased(engine) as token:
        return await engine.warm(documents, acked=acked, token=token, life=await engine.life())


async def test_warming_gives_absent_keys_their_documents_uncaptured(engine: Engine) -> None:
    await engine.redis.set(engine.names.acked, "7 0-0")
    await put(engine, "there", {"n": 1})
    await put(engine, "written", {"n": 1})
    await evict(engine, "written")
    await engine.delete("deleted", Any_(), backlog_limit=LIMIT)
    waits = Entry(EntryId(5, 0), b"todos:set aside", "json.set", document=b'{"n": 1}')
    await engine.redis.hset(NAMES.aside, mapping={"5-0": value_of(waits)})
    exact = b'{"n":12.917521550408111,"m":[0.1,{"x":232.67467448965874}],"t":"\\u0000\\"\xc3\xa9"}'
    documents = {"1": exact, "2": b'{"n":2}', "3": b"{}"} | dict.fromkeys(
        ("there", "written", "deleted", "set aside"), b'{"n":2}'
    )
    before = await entries(engine)
    assert await warm(engine, documents) == 3
    assert await entries(engine) == before
    assert {i: await get(engine, i) for i in documents} == {
        "1": json.loads(exact),
        "2": {"n": 2},
        "3": {},
        "there": {"n": 1},
        "written": None,
        "deleted": None,
        "set aside": None,
    }
    assert await warm(engine, documents) == 0


async def test_nothing_is_warmed_with_what_was_read_before_something_was_acknowledged(engine: Engine) -> None:
    await engine.redis.set(engine.names.acked, "8 0-0")
    assert await warm(engine, {"1": b"{}"}) is None
    for n in range(200):
        await put(engine, "2", {"n": n})
    assert await warm(engine, {"1": b"{}"}, acked="8 0-0") == 1
    await put(engine, "2", {})
    assert await warm(engine, {"3": b"{}"}, acked="8 0-0") is None, "so many entries are not searched"
    with pytest.raises(LeaseLost):
        await engine.warm({"3": b"{}"}, acked="8 0-0", token="theirs", life=await engine.life())
    await engine.redis.set(engine.names.lease, "ours")
    with pytest.raises(Rewound):
        await engine.warm({"3": b"{}"}, acked="8 0-0", token="ours", life="another")
    assert await get(engine, "3") is None


async def test_who_lost_the_lease_gives_nothing_back(engine: Engine) -> None:
    since = await put(engine, "1", {"new": 1})
    for held in (None, "theirs"):
        if held is not None:
            await engine.redis.set(engine.names.lease, held)
        for document in (b'{"lost":1}', None):
            with pytest.raises(LeaseLost):
                await engine.give_back("1", document, since=since, token="ours", life=await engine.life())
    assert len(await entries(engine)) == 1
    assert await get(engine, "1") == {"new": 1}


async def test_giving_back_respects_a_write_since(engine: Engine) -> None:
    await put(engine, "1", {"new": 1})
    assert not await give_back(engine, b'{"lost":1}', since=EntryId(1, 0))
    assert await get(engine, "1") == {"new": 1}


async def test_mappings_keep_to_themselves(engine: Engine) -> None:
    other = await open_engine(engine.redis, Mapping("a.b-c:d", "test", "other"))
    await other.install()
    await put(other, "1", {})
    await put(engine, "1", {})
    assert await entries(engine) == [{"k": "todos:1", "e": "json.set"}]
    assert await engine.redis.xlen(other.names.stream) == 1
    assert await other.remove()
    assert (await engine.status()).working


async def test_what_a_plain_client_does_reaches_mongodb_within_a_second(working: KindStack, new_id: str) -> None:
    redis = working.redis_client
    key = f"todos:{new_id}"
    for command, after in (
        (("JSON.SET", key, "$", '{"n":1,"l":[1]}'), {"id": new_id, "n": 1, "l": [1]}),
        (("JSON.NUMINCRBY", key, "$.n", "4"), {"id": new_id, "n": 5, "l": [1]}),
        (("JSON.ARRAPPEND", key, "$.l", "2"), {"id": new_id, "n": 5, "l": [1, 2]}),
        (("JSON.DEL", key, "$.l"), {"id": new_id, "n": 5}),
        (("DEL", key), None),
        (("EVAL", "return redis.call('JSON.SET', KEYS[1], '$', '{}')", "1", key), {"id": new_id}),
        (("RENAME", key, f"{key}-renamed"), None),
    ):
        if command[0] == "EVAL" and working.external:
            command, after = ("JSON.SET", key, "$", "{}"), {"id": new_id}  # not from Lua on Redis before 7
        await redis.execute_command(*command)
        await eventually(lambda after=after: _is(working, new_id, after), within=1)  # type: ignore[misc]
    await eventually(lambda: _is(working, f"{new_id}-renamed", {"id": f"{new_id}-renamed"}), within=1)


async def test_a_transaction_of_a_plain_client_is_captured(working: KindStack, new_id: str) -> None:
    async with working.redis_client.pipeline(transaction=True) as pipeline:
        for n in range(3):
            pipeline.execute_command("JSON.SET", f"todos:{new_id}{n}", "$", f'{{"n":{n}}}')
        pipeline.delete(f"todos:{new_id}0")
        replies = await pipeline.execute()
    if working.external:  # whose hooks wrap all replies but the first
        replies = [reply[0] if isinstance(reply, list) else reply for reply in replies]
    assert replies == [b"OK", b"OK", b"OK", 1]
    await eventually(lambda: _is(working, f"{new_id}2", {"id": f"{new_id}2", "n": 2}), within=1)
    await eventually(lambda: _is(working, f"{new_id}1", {"id": f"{new_id}1", "n": 1}), within=1)
    assert await working.stored(f"{new_id}0") is None


LAST_NAMES = [pytest.param("c", id="taken"), pytest.param("x" * 1100, id="refused")]
"""What a document may be called that MongoDB takes, and what it refuses."""


async def renamed_twice(stack: KindStack, new_id: str, last: str) -> None:
    """In one transaction, to this name in the end: the document arrives under it, or stays what it was."""
    names = [f"{new_id}-{name}" for name in ("a", "b", last)]
    first, second, third = names
    await stack.set(first, {"n": 1})
    await eventually(lambda: stack.stored(first))
    before = await stack.todos.find_one({"id": first})
    async with stack.redis_client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("RENAME", f"todos:{first}", f"todos:{second}")
        pipeline.execute_command("RENAME", f"todos:{second}", f"todos:{third}")
        await pipeline.execute()
    remains = third if last == "c" else first

    async def arrived() -> bool:
        in_redis = [name for name in names if await stack.redis_client.exists(f"todos:{name}")]
        stored = {name: await stack.stored(name) for name in names}
        return in_redis == [remains] and stored == dict.fromkeys(names) | {remains: {"id": remains, "n": 1}}

    await eventually(arrived)
    await stack.drained()
    assert await arrived()
    if remains == first:
        assert await stack.todos.count_documents({"id": first, "_id": before["_id"]}) == 1


@pytest.mark.parametrize("last", LAST_NAMES)
async def test_a_document_that_is_renamed_twice_in_a_transaction_arrives_as_a_whole(
    working: KindStack, new_id: str, last: str
) -> None:
    await renamed_twice(working, new_id, last)


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_document_that_is_renamed_onto_what_is_refused_stays_what_it_was(
    working: KindStack, new_id: str, *, transaction: bool
) -> None:
    too_long = f"{new_id}-{'x' * 1100}"
    await working.set(new_id, {"n": 1})
    await eventually(lambda: working.stored(new_id))
    async with working.redis_client.pipeline(transaction=transaction) as pipeline:
        pipeline.execute_command("JSON.SET", f"todos:{too_long}", "$", "{}")
        pipeline.execute_command("RENAME", f"todos:{new_id}", f"todos:{too_long}")
        await pipeline.execute(raise_on_error=False)  # gears1 tells it to whoever it holds

    async def is_back() -> bool:
        stored = await working.stored(new_id), await working.stored(too_long)
        return await working.get(new_id) == {"id": new_id, "n": 1} and stored == ({"id": new_id, "n": 1}, None)

    await eventually(is_back)
    await working.drained()
    assert await is_back()
    assert not await working.redis_client.exists(f"todos:{too_long}")


async def test_a_write_of_a_plain_client_that_mongodb_cant_hold_is_taken_back(working: KindStack, new_id: str) -> None:
    await working.set(new_id, {"good": 1})
    await eventually(lambda: _is(working, new_id, {"id": new_id, "good": 1}), within=1)
    told = pytest.raises(ResponseError, match=r"refused: .* starts with") if working.external else nullcontext()
    with told:
        await working.set(new_id, {"$bad": 1})
    await eventually(lambda: _holds(working, new_id, {"id": new_id, "good": 1}), within=2)
    assert await working.stored(new_id) == {"id": new_id, "good": 1}


async def test_what_redis_was_filled_with_is_not_taken_for_a_write(working: KindStack, new_id: str) -> None:
    await working.set(new_id, {"a": 1})
    await eventually(lambda: _is(working, new_id, {"id": new_id, "a": 1}), within=1)
    await working.drained()
    before = await working.todos.find_one({"id": new_id})
    async with connect(working.redis_url, timeout=5) as redis:
        engine = await open_engine(redis, working.settings.mappings[0])
        await uncaptured(engine, new_id, None)
        given = await ticket(engine, new_id)
        document = b'{"id":"%b","a":1}' % new_id.encode()
        assert await engine.fill(new_id, document, version=before["_sync"]["v"], ticket=given) == document
    await anyio.sleep(0.5)
    await working.drained()
    assert await working.todos.find_one({"id": new_id}) == before


async def test_the_worker_installs_a_recipe_that_is_gone(working: KindStack, new_id: str) -> None:
    async with connect(working.redis_url, timeout=5) as redis:
        engine = await open_engine(redis, working.settings.mappings[0])
        assert await engine.remove()
        await eventually(lambda: _works(engine), within=5)
    await working.set(new_id, {})
    await eventually(lambda: _is(working, new_id, {"id": new_id}), within=5)


async def _is(stack: KindStack, document_id: str, document: dict[str, Any] | None) -> bool:
    return await stack.stored(document_id) == document


async def _holds(stack: KindStack, document_id: str, document: dict[str, Any]) -> bool:
    found = await stack.get(document_id)
    return bool({"id": document_id} | found == document) if found else False


async def _works(engine: Engine) -> bool:
    return (await engine.status()).working


async def _last(stack: KindStack) -> EntryId:
    info = await stack.redis_client.xinfo_stream(NAMES.stream)
    return EntryId.parse(info["last-generated-id"])
