"""Documents that wait for one another by unique indexes: what is consistent in Redis arrives whole in MongoDB."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from random import Random
from typing import Any
from uuid import uuid4

import anyio
import pytest
import pytest_asyncio

from tests.support.stack import Stack, eventually

Documents = dict[str, dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def things(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with a mapping `things`, whose collection has unique indexes of the users'."""
    stack = Stack(
        tmp_path_factory.mktemp("things"), MAPPINGS="things=test.things:id,mails=test.mails:email", WT_BATCH_SIZE="20"
    )
    try:
        await stack.start(stack.redis, stack.mongo)
        collection = stack.mongo_client.test.things
        for fields in ("mail",), ("a", "b"), ("tags",):
            await collection.create_index(
                [(name, 1) for name in fields],
                unique=True,
                partialFilterExpression={fields[0]: {"$exists": True}},
            )
        await stack.mongo_client.test.mails.create_index(
            "email", name="email_ci", unique=True, collation={"locale": "en", "strength": 2}
        )
        await stack.start(stack.worker, stack.api)
        yield stack
    finally:
        await stack.close()


async def held_by_redis(stack: Stack, pattern: str = "*") -> Documents:
    keys = [key async for key in stack.redis_client.scan_iter(f"things:{pattern}")]
    found = {}
    for key in keys:
        text = await stack.redis_client.execute_command("JSON.GET", key)
        if text is not None:
            document = json.loads(text) if isinstance(text, bytes | str) else text
            found[key.decode().removeprefix("things:")] = document
    return found


async def held_by_mongodb(stack: Stack, pattern: str = "") -> Documents:
    found = await stack.mongo_client.test.things.find({"id": {"$regex": f"^{pattern}"}}).to_list()
    return {one["id"]: {k: v for k, v in one.items() if k not in ("_id", "_sync")} for one in found}


async def dead(stack: Stack) -> int:
    return await stack.mongo_client.test.sync_dead_letters.count_documents({})


async def put(stack: Stack, document_id: str, **fields: Any) -> None:
    answer = await stack.client.put(f"/things/{document_id}", json=fields)
    assert answer.status_code in (200, 201), answer.text


async def run(stack: Stack, *commands: tuple[str, ...], multi: bool = False) -> None:
    async with stack.redis_client.pipeline(transaction=multi) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        await pipeline.execute()


def json_set(document_id: str, **fields: Any) -> tuple[str, ...]:
    return ("JSON.SET", f"things:{document_id}", "$", json.dumps({"id": document_id} | fields))


async def arrive(stack: Stack, prefix: str, expected: Documents, within: float = 60) -> None:
    """Both sides hold this, and nothing was refused."""

    async def arrived() -> bool:
        await stack.drained("things", within=within)
        return await held_by_mongodb(stack, prefix) == expected == await held_by_redis(stack, f"{prefix}*")

    try:
        await eventually(arrived, within=within)
    except AssertionError:
        assert await held_by_redis(stack, f"{prefix}*") == expected
        assert await held_by_mongodb(stack, prefix) == expected
        raise


@pytest_asyncio.fixture
async def u(things: Stack) -> AsyncIterator[str]:
    """A prefix of ids of the test's own; nothing may be refused in it."""
    before = await dead(things)
    yield uuid4().hex[:8]
    assert await dead(things) == before


async def test_a_rename(things: Stack, u: str) -> None:
    await put(things, f"{u}1", mail=f"{u}@x")
    await run(things, ("RENAME", f"things:{u}1", f"things:{u}1b"))
    await arrive(things, u, {f"{u}1b": {"id": f"{u}1b", "mail": f"{u}@x"}})


async def test_a_delete_then_another_with_its_value(things: Stack, u: str) -> None:
    await put(things, f"{u}2", mail=f"{u}@x")
    await run(things, ("DEL", f"things:{u}2"), json_set(f"{u}2b", mail=f"{u}@x"))
    await arrive(things, u, {f"{u}2b": {"id": f"{u}2b", "mail": f"{u}@x"}})


async def test_an_exchange(things: Stack, u: str) -> None:
    one, other = f"{u}4", f"{u}4b"
    await put(things, one, mail=f"{u}@x")
    await put(things, other, mail=f"{u}b@x")
    ids = {d["id"]: d["_id"] async for d in things.mongo_client.test.things.find({"id": {"$in": [one, other]}})}
    await run(
        things,
        ("JSON.SET", f"things:{one}", "$.mail", '"free"'),
        ("JSON.SET", f"things:{other}", "$.mail", f'"{u}@x"'),
        ("JSON.SET", f"things:{one}", "$.mail", f'"{u}b@x"'),
        multi=True,
    )
    await arrive(things, u, {one: {"id": one, "mail": f"{u}b@x"}, other: {"id": other, "mail": f"{u}@x"}})
    after = {d["id"]: d["_id"] async for d in things.mongo_client.test.things.find({"id": {"$in": [one, other]}})}
    assert after == ids
    assert await things.mongo_client.test.sync_parked.count_documents({}) == 0


async def test_an_exchange_by_one_command(things: Stack, u: str) -> None:
    ids = [f"{u}{n}" for n in range(5)]
    for n, document_id in enumerate(ids):
        await put(things, document_id, mail=f"{u}-{n}@x")
    expected = {i: {"id": i, "mail": f"{u}-{(n + 1) % 5}@x"} for n, i in enumerate(ids)}
    parts = [part for i, d in expected.items() for part in (f"things:{i}", "$", json.dumps(d))]
    await run(things, ("JSON.MSET", *parts))
    await arrive(things, u, expected)


async def mails(stack: Stack, u: str, given: Iterable[int]) -> None:
    """By one command, and in one backlog: documents with mails of these numbers, whoever had them until now."""
    documents = {f"{u}{n:03}": {"id": f"{u}{n:03}", "mail": f"{u}-{m}@x"} for n, m in enumerate(given)}
    parts = [part for i, d in documents.items() for part in (f"things:{i}", "$", json.dumps(d))]
    stack.worker.freeze()
    try:
        await run(stack, ("JSON.MSET", *parts))
    finally:
        stack.worker.thaw()
    await arrive(stack, u, documents, within=60)


@pytest.mark.parametrize(
    "given",
    [[*range(1, 60), 0], [59, *range(59)], range(59, -1, -1), range(1, 61), [n * 7 % 60 for n in range(1, 61)]],
    ids=["rotated", "rotated back", "reversed", "shifted", "mixed"],
)
async def test_a_backlog_of_several_batches_in_which_all_wait_for_one_another(
    things: Stack, u: str, given: Sequence[int]
) -> None:
    """Batches are of twenty documents."""
    await mails(things, u, range(60))
    await mails(things, u, given)
    assert await things.mongo_client.test.sync_parked.count_documents({}) == 0


@pytest.mark.parametrize("point", ["parked", "taken out", "documents written"])
async def test_an_exchange_by_a_committer_that_dies_amid_it(things: Stack, u: str, point: str) -> None:
    one, other = f"{u}6", f"{u}6b"
    await put(things, one, mail=f"{u}@x")
    await put(things, other, mail=f"{u}b@x")
    ids = {d["id"]: d["_id"] async for d in things.mongo_client.test.things.find({"id": {"$in": [one, other]}})}
    await things.worker.stop()
    try:
        dying = things.worker.armed(FAILPOINTS=f"kill {point}")
        await dying.start(wait=False)
        parts = [(f"things:{one}", "$", f'{{"id":"{one}","mail":"{u}b@x"}}')]
        parts += [(f"things:{other}", "$", f'{{"id":"{other}","mail":"{u}@x"}}')]
        await run(things, ("JSON.MSET", *(text for part in parts for text in part)))
        await dying.ends()
    finally:
        await things.worker.start()
    await arrive(things, u, {one: {"id": one, "mail": f"{u}b@x"}, other: {"id": other, "mail": f"{u}@x"}})
    after = {d["id"]: d["_id"] async for d in things.mongo_client.test.things.find({"id": {"$in": [one, other]}})}
    assert after == ids
    assert await things.mongo_client.test.sync_parked.count_documents({}) == 0


async def test_what_lets_go_far_behind(things: Stack, u: str) -> None:
    """The holder's delete is hundreds of entries, and many batches, after the write that takes its value."""
    await put(things, f"{u}old", mail=f"{u}@x")
    await put(things, f"{u}moves", mail=f"{u}m@x")
    things.worker.freeze()
    try:
        await run(
            things,
            json_set(f"{u}new", mail=f"{u}@x"),
            json_set(f"{u}next", mail=f"{u}m@x"),
            *(json_set(f"{u}-{n:03}", n=n) for n in range(300)),
            ("DEL", f"things:{u}old"),
            json_set(f"{u}moves", mail=f"{u}n@x"),
        )
    finally:
        things.worker.thaw()
    expected = {f"{u}-{n:03}": {"id": f"{u}-{n:03}", "n": n} for n in range(300)}
    expected |= {f"{u}{i}": {"id": f"{u}{i}", "mail": m} for i, m in (("new", f"{u}@x"), ("next", f"{u}m@x"))}
    await arrive(things, u, expected | {f"{u}moves": {"id": f"{u}moves", "mail": f"{u}n@x"}})


async def test_by_http_in_a_backlog(things: Stack, u: str) -> None:
    await put(things, f"{u}a", mail=f"{u}@x")
    things.worker.freeze()
    prefer = {"Prefer": "respond-async"}
    try:
        assert (await things.client.delete(f"/things/{u}a", headers=prefer)).status_code == 202
        answer = await things.client.put(f"/things/{u}b", json={"mail": f"{u}@x"}, headers=prefer)
        assert answer.status_code == 202
    finally:
        things.worker.thaw()
    await arrive(things, u, {f"{u}b": {"id": f"{u}b", "mail": f"{u}@x"}})


async def test_what_holds_it_still_refuses(things: Stack) -> None:
    u = uuid4().hex[:8]
    await put(things, f"{u}1", mail=f"{u}@x")
    answer = await things.client.put(f"/things/{u}2", json={"mail": f"{u}@x"})
    assert answer.status_code == 422
    assert f"things:{u}1" in answer.text
    await arrive(things, u, {f"{u}1": {"id": f"{u}1", "mail": f"{u}@x"}})


async def test_what_only_mongodb_holds_refuses(things: Stack) -> None:
    u = uuid4().hex[:8]
    await put(things, f"{u}1", mail=f"{u}@x")
    await run(things, ("PEXPIRE", f"things:{u}1", "1"))
    await eventually(lambda: _gone(things, f"{u}1"))
    answer = await things.client.put(f"/things/{u}2", json={"mail": f"{u}@x"})
    assert answer.status_code == 422
    assert await held_by_mongodb(things, u) == {f"{u}1": {"id": f"{u}1", "mail": f"{u}@x"}}


@pytest.mark.parametrize("target", ["x" * 1100, "", "a\0b", b"\xff\xfe"])
async def test_a_refused_move_is_rolled_back(things: Stack, target: str | bytes) -> None:
    u = uuid4().hex[:8]
    await put(things, f"{u}r", n=1)
    name = b"things:" + (target if isinstance(target, bytes) else target.encode())
    await things.redis_client.rename(f"things:{u}r", name)
    expected = {f"{u}r": {"id": f"{u}r", "n": 1}}
    await arrive(things, u, expected)
    await eventually(lambda: _gone(things, name))
    await anyio.sleep(1.5)  # the recheck looks at both by then
    await arrive(things, u, expected)


async def test_a_refused_move_over_two_names_is_rolled_back(things: Stack) -> None:
    u = uuid4().hex[:8]
    await put(things, f"{u}r", n=1)
    await run(
        things,
        ("RENAME", f"things:{u}r", f"things:{u}s"),
        ("RENAME", f"things:{u}s", "things:" + "x" * 1100),
        multi=True,
    )
    await arrive(things, u, {f"{u}r": {"id": f"{u}r", "n": 1}})


async def test_a_refused_move_is_one_wherever_a_batch_ends(things: Stack) -> None:
    """Batches are of twenty documents; the two entries of a RENAME are in the same one."""
    for before in range(16, 23):
        u = uuid4().hex[:8]
        await put(things, f"{u}r", n=1)
        things.worker.freeze()
        try:
            others: Documents = {f"{u}-{n}": {"id": f"{u}-{n}", "n": n} for n in range(before)}
            writes = [json_set(f"{u}-{n}", n=n) for n in range(before)]
            await run(things, *writes, ("RENAME", f"things:{u}r", "things:" + "x" * 1100))
        finally:
            things.worker.thaw()
        await arrive(things, u, others | {f"{u}r": {"id": f"{u}r", "n": 1}})


async def test_an_index_that_ignores_case_refuses_the_second_only(things: Stack) -> None:
    async def status(document_id: str) -> int:
        return (await things.client.put(f"/mails/{document_id}", json={})).status_code

    assert [await status(i) for i in ("Bob@x.org", "bob@x.org", "eve@x.org")] == [201, 422, 201]
    assert (await things.client.get("/mails/Bob@x.org")).json() == {"email": "Bob@x.org"}
    assert (await things.client.get("/mails/bob@x.org")).status_code == 404
    await things.redis_client.rename("mails:Bob@x.org", "mails:BOB@x.org")

    async def renamed() -> bool:
        return sorted(await things.mongo_client.test.mails.distinct("email")) == ["BOB@x.org", "eve@x.org"]

    await eventually(renamed, within=20)


async def test_any_history(things: Stack) -> None:
    """Random histories that are consistent in Redis at every step, in backlogs: nothing is refused, all arrives."""
    before = await dead(things)
    for seed in range(12):
        random, u = Random(seed), uuid4().hex[:8]
        history = History(random, u)
        for _ in range(4):
            if random.random() < 0.7:
                things.worker.freeze()
            try:
                for _ in range(random.choice((3, 30, 60))):
                    await run(things, *history.step(), multi=True)
            finally:
                things.worker.thaw()
            await arrive(things, u, history.documents)
    assert await dead(things) == before


class History:
    """Documents with values that must be unique, and steps that keep them so."""

    def __init__(self, random: Random, prefix: str) -> None:
        self._random = random
        self._ids = [f"{prefix}-{n}" for n in range(8)]
        self._values = [f"{prefix}/{n}" for n in range(10)]
        self.documents: Documents = {}

    def step(self) -> list[tuple[str, ...]]:
        """Commands that take one consistent state to the next."""
        random, held = self._random, sorted(self.documents)
        match random.choice(("set", "set", "set", "delete", "rename", "exchange", "rotate")):
            case "delete" if held:
                gone = random.choice(held)
                del self.documents[gone]
                return [("DEL", f"things:{gone}")]
            case "rename" if held:
                old, new = random.choice(held), random.choice(self._ids)
                if old == new:
                    return []
                self.documents[new] = self.documents.pop(old) | {"id": new}
                return [("RENAME", f"things:{old}", f"things:{new}")]
            case "exchange" if len(held) > 1:
                return self._rotated(random.sample(held, 2))
            case "rotate" if len(held) > 2:
                return self._rotated(random.sample(held, random.randint(2, len(held))))
            case _:
                document_id = random.choice(self._ids)
                self.documents.pop(document_id, None)
                self.documents[document_id] = {"id": document_id, "n": random.randrange(100)} | self._free()
                return [json_set(**{"document_id": document_id} | _without_id(self.documents[document_id]))]

    def _rotated(self, ids: list[str]) -> list[tuple[str, ...]]:
        bodies = [_without_id(self.documents[i]) for i in ids]
        for document_id, body in zip(ids, [*bodies[1:], bodies[0]], strict=True):
            self.documents[document_id] = {"id": document_id} | body
        return [json_set(i, **_without_id(self.documents[i])) for i in ids]

    def _free(self) -> dict[str, Any]:
        """Fields whose values nobody else holds."""
        random = self._random
        others = self.documents.values()
        fields: dict[str, Any] = {}
        mails = {d.get("mail") for d in others}
        if free := [v for v in self._values if v not in mails]:
            fields["mail"] = random.choice(free)
        pairs = {(d.get("a"), d.get("b")) for d in others}
        if free_pairs := [(v, w) for v in self._values for w in (1, 2.5, None) if (v, w) not in pairs]:
            fields["a"], fields["b"] = random.choice(free_pairs)
        tags = {tag for d in others for tag in d.get("tags", ())}
        if len(free := [v for v in self._values if v not in tags]) > 1:
            fields["tags"] = random.sample(free, 2)
        return {name: value for name, value in fields.items() if random.random() < 0.8 or name in "ab"}


def _without_id(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "id"}


async def _gone(stack: Stack, key: str | bytes) -> bool:
    key = f"things:{key}" if isinstance(key, str) else key
    return not await stack.redis_client.exists(key)
