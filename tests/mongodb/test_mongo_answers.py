"""What MongoDB answers: only what blames a document refuses it; all else is tried again, and others go on."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
import pytest_asyncio

from gears.in_mongo.errors.known_codes import name_of
from tests.support.codes import REFUSING, RETRIED
from tests.support.stack import Stack, eventually
from tests.wire import Command, WireProxy, apply_then_cut, cut, item_error, on, top_error, write_concern_error
from tests.wire.actions import Action
from tests.wire.replies import item_errors_reply, merged_reply
from tests.wire.rules import On

ASYNC = {"Prefer": "respond-async"}
WRITES = ("insert", "update", "delete")


class Proxied:
    """A stack whose worker and API reach MongoDB through a proxy."""

    def __init__(self, stack: Stack, proxy: WireProxy) -> None:
        self.stack, self.proxy = stack, proxy
        self.client: httpx.AsyncClient = stack.client

    async def put(self, document_id: str, **body: Any) -> httpx.Response:
        return await self.client.put(f"/notes/{document_id}", json=body)

    async def pending(self, token: str) -> bool:
        answer = await self.client.get(f"/sync/{token}?mapping=notes")
        assert answer.json()["mappings"]["notes"] in ("pending", "committed"), answer.text
        return bool(answer.json()["mappings"]["notes"] == "pending")

    async def readyz(self) -> httpx.Response:
        return await self.client.get("/readyz")

    async def dead_letters(self) -> int:
        return await self.stack.mongo_client.test.sync_dead_letters.count_documents({})

    async def is_well(self) -> bool:
        worker = (await self.client.get("/sync")).json()["mappings"]["notes"]["worker"]
        return bool(worker and worker["state"] == "committing" and worker["aside"] == 0)


async def proxied(folder: Path) -> AsyncIterator[Proxied]:
    stack = Stack(folder, WT_LEASE_TTL="2", WT_MONGO_TIMEOUT="5", WT_COMMIT_TIMEOUT="3")
    try:
        await stack.start(stack.mongo, stack.redis)
        async with WireProxy(stack.setup.mongo_port) as proxy:
            stack.worker = stack.another_worker("proxied-worker", MONGO_URI=proxy.uri)
            stack.api = stack.another_api("proxied-api", stack.setup.port, MONGO_URI=proxy.uri)
            await stack.start(stack.worker, stack.api)
            yield Proxied(stack, proxy)
    finally:
        await stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxied]:
    async for system in proxied(tmp_path_factory.mktemp("proxied")):
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def own_system(tmp_path: Path) -> AsyncIterator[Proxied]:
    async for system in proxied(tmp_path):
        yield system


def holds(document_id: str) -> Any:
    """Whether a command has an item for this document."""

    def found(command: Command) -> bool:
        return any(_is_for(item, document_id) for item in command.items)

    return found


def replaces(document_id: str) -> Any:
    """Whether a command writes this document as a whole, and not its version alone."""

    def found(command: Command) -> bool:
        return any(_is_for(item, document_id) and "$set" not in item.get("u", {}) for item in command.items)

    return found


def items_of(codes: dict[str, int]) -> Action:
    """The items for these documents fail, each with its code."""

    async def act(exchange: Any) -> None:
        command = exchange.command
        failing = {i: codes[item["q"]["id"]] for i, item in enumerate(command.items) if item["q"].get("id") in codes}
        others = [i for i in range(command.size) if i not in failing]
        reply = await exchange.forward(command.packed_with(others)) if others else {"ok": 1.0, "n": 0}
        reply = merged_reply(reply, others)
        for index, code in failing.items():
            reply = item_errors_reply(reply, [index], {"code": code, "errmsg": "said by the proxy"}, command)
        await exchange.answer(reply)

    return act


def item_of(document_id: str, code: int) -> Action:
    """The items for this document fail with this code."""
    return item_error(code, index=lambda item: _is_for(item, document_id))


def _is_for(item: Any, document_id: str) -> bool:
    return bool(item["q"].get("id") == document_id)


async def test_codes_that_blame_a_document_refuse_it(system: Proxied) -> None:
    for code in REFUSING:
        document_id = uuid4().hex
        with system.proxy.rule(on("update", "notes").where(holds(document_id)), item_of(document_id, code)):
            answer = await system.put(document_id, n=1)
        assert answer.status_code == 422, (code, answer.text)
        assert str(code) in answer.text
        assert (await system.client.get(f"/notes/{document_id}")).status_code == 404


@pytest.mark.parametrize("verb", ["create", "replace", "delete"])
async def test_any_other_code_sets_the_document_aside_while_others_go_on(system: Proxied, verb: str) -> None:
    """Many codes at once, each for one document; and those that blame documents too, for deletes."""
    before = await system.dead_letters()
    codes = [*RETRIED, *(REFUSING if verb == "delete" else [])]
    ids = {code: f"{verb}-{code}-{uuid4().hex[:8]}" for code in codes}
    if verb != "create":
        for document_id in ids.values():
            assert (await system.client.put(f"/notes/{document_id}", json={"n": 0}, headers=ASYNC)).status_code == 202
        await system.stack.drained("notes")
    command = "delete" if verb == "delete" else "update"
    rule = system.proxy.add(on(command, "notes").each(), items_of({i: code for code, i in ids.items()}))
    tokens = {}
    for code, document_id in ids.items():
        if verb == "delete":
            answer = await system.client.delete(f"/notes/{document_id}", headers=ASYNC)
        else:
            answer = await system.client.put(f"/notes/{document_id}", json={"n": 1}, headers=ASYNC)
        assert answer.status_code == 202, answer.text
        tokens[code] = answer.headers["Sync-Token"]
    for n in range(3):
        good = await eventually(lambda n=n: _written(system, f"good-{verb}-{n}"), within=20)  # type: ignore[misc]
        assert good
    for token in tokens.values():
        assert await system.pending(token)
    ready = await system.readyz()
    assert ready.status_code == 200
    assert "set aside" in ready.text
    system.proxy.remove(rule)
    await eventually(system.is_well, within=30, pause=0.2)
    for code, document_id in ids.items():
        expected = None if verb == "delete" else {"id": document_id, "n": 1}
        assert await system.stack.stored(document_id, "notes") == expected, code
        assert not await system.pending(tokens[code])
    assert await system.dead_letters() == before


async def _written(system: Proxied, document_id: str) -> bool:
    return (await system.put(document_id, n=1)).status_code in (200, 201)


async def test_a_write_that_is_set_aside_is_confirmed_when_it_is_committed(system: Proxied) -> None:
    document_id = uuid4().hex
    rule = system.proxy.add(on("update", "notes").where(holds(document_id)), item_of(document_id, 13))
    async with anyio.create_task_group() as tasks:
        answers: list[httpx.Response] = []

        async def put() -> None:
            wait = {"Prefer": "wait=20"}
            answers.append(await system.client.put(f"/notes/{document_id}", json={"n": 1}, headers=wait))

        tasks.start_soon(put)
        await eventually(lambda: _written_and_says(system, "set aside"), within=20)
        assert not answers
        system.proxy.remove(rule)
    assert answers[0].status_code == 201, answers[0].text


async def _written_and_says(system: Proxied, text: str) -> bool:
    return await _written(system, f"good-{uuid4().hex}") and await _says(system, text)


async def _says(system: Proxied, text: str) -> bool:
    return text in (await system.readyz()).text


async def test_what_is_set_aside_outlives_a_committer(system: Proxied) -> None:
    document_id = uuid4().hex
    rule = system.proxy.add(on("update", "notes").where(holds(document_id)), item_of(document_id, 13))
    answer = await system.client.put(f"/notes/{document_id}", json={"n": 1}, headers=ASYNC)
    await eventually(lambda: _written(system, f"good-{uuid4().hex}"), within=20)
    await system.stack.worker.kill()
    await system.stack.worker.start()
    assert await system.pending(answer.headers["Sync-Token"])
    await eventually(lambda: _written(system, f"good-{uuid4().hex}"), within=20)
    assert await system.pending(answer.headers["Sync-Token"])
    system.proxy.remove(rule)
    await eventually(system.is_well, within=30, pause=0.2)
    assert await system.stack.stored(document_id, "notes") == {"id": document_id, "n": 1}


async def test_what_expires_while_it_is_set_aside_reaches_mongodb(system: Proxied) -> None:
    """The committer that set it aside is gone as well."""
    document_id, redis = uuid4().hex, system.stack.redis_client
    rule = system.proxy.add(on("update", "notes").where(holds(document_id)), item_of(document_id, 13))
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.json().set(f"notes:{document_id}", "$", {"id": document_id, "n": 1})
        pipeline.expire(f"notes:{document_id}", 3600)
        await pipeline.execute()
    await eventually(lambda: _written_and_says(system, "set aside"), within=20)
    await system.stack.worker.kill()
    await redis.pexpire(f"notes:{document_id}", 50)
    await eventually(lambda: _is_absent(system, document_id))
    await system.stack.worker.start()
    system.proxy.remove(rule)
    await eventually(system.is_well, within=30, pause=0.2)
    assert await system.stack.stored(document_id, "notes") == {"id": document_id, "n": 1}


@pytest.mark.parametrize("code", [121, 13])
async def test_a_rename_that_fails_once_the_old_name_is_gone_loses_nothing(system: Proxied, code: int) -> None:
    """The old name held what must be unique; it was taken out for the new one, which MongoDB then didn't take."""
    notes, old, new = system.stack.mongo_client.test.notes, f"old-{uuid4().hex}", f"new-{uuid4().hex}"
    some = {"mail": {"$exists": True}}
    await notes.create_index("mail", unique=True, partialFilterExpression=some)
    assert (await system.put(old, mail=old)).status_code == 201
    before = await notes.find_one({"id": old})
    chosen = on("update", "notes").where(holds(new))
    rule = system.proxy.add(replace(chosen, first=1), item_of(new, code))  # all but the first
    await system.stack.redis_client.rename(f"notes:{old}", f"notes:{new}")
    if code == 121:
        await eventually(lambda: _holds(system, old, {"id": old, "mail": old}), within=20)
        await system.stack.drained("notes")
        after = await notes.find_one({"id": old})
        assert (after or {})["_id"] == (before or {})["_id"]
        assert await system.stack.stored(new, "notes") is None
        assert await system.stack.redis_client.exists(f"notes:{new}") == 0
        assert (await system.client.get(f"/notes/{old}")).json() == {"id": old, "mail": old}
        system.proxy.remove(rule)
    else:
        await eventually(lambda: _written_and_says(system, "set aside"), within=20)
        assert await system.stack.stored(old, "notes") is not None
        system.proxy.remove(rule)
        await eventually(system.is_well, within=30, pause=0.2)
        assert await system.stack.stored(old, "notes") is None
        assert await system.stack.stored(new, "notes") == {"id": new, "mail": old}
    assert await system.stack.mongo_client.test.sync_parked.count_documents({}) == 0


async def test_a_rename_that_was_set_aside_and_is_refused_by_the_next_committer_is_rolled_back(system: Proxied) -> None:
    old, new = f"old-{uuid4().hex}", f"new-{uuid4().hex}"
    assert (await system.put(old, n=1)).status_code == 201
    chosen = on("update", "notes").where(holds(new))
    with system.proxy.rule(chosen, item_of(new, 13)):
        await system.stack.redis_client.rename(f"notes:{old}", f"notes:{new}")
        await eventually(lambda: _written_and_says(system, "set aside"), within=20)
        await system.stack.worker.kill()
    with system.proxy.rule(chosen, item_of(new, 121)):
        await system.stack.worker.start()
        await eventually(lambda: _holds(system, old, {"id": old, "n": 1}), within=20)
    await eventually(system.is_well, within=30, pause=0.2)
    assert await system.stack.redis_client.exists(f"notes:{new}") == 0
    assert await _holds(system, old, {"id": old, "n": 1})


async def _holds(system: Proxied, document_id: str, document: dict[str, Any]) -> bool:
    both = await system.stack.get(document_id, "notes"), await system.stack.stored(document_id, "notes")
    return both == (document, document)


async def test_an_error_of_a_look_at_what_is_in_the_way_is_tried_again(system: Proxied) -> None:
    notes, u = system.stack.mongo_client.test.notes, uuid4().hex
    await notes.create_index("mail", unique=True, partialFilterExpression={"mail": {"$exists": True}})
    assert (await system.put(f"{u}-1", mail=u)).status_code == 201
    for chosen in (on("find", "notes"), on("listIndexes", "notes"), on("find", "sync_parked")):
        with system.proxy.rule(chosen.next(2), top_error(11600)):
            assert (await system.put(f"{u}-2", mail=u)).status_code == 422
    assert "crashed" not in system.stack.worker.log.read_text()


async def test_what_is_set_aside_and_forgotten_by_redis_is_called_lost(own_system: Proxied) -> None:
    system, document_id = own_system, uuid4().hex
    rule = system.proxy.add(on("update", "notes").where(holds(document_id)), item_of(document_id, 13))
    answer = await system.client.put(f"/notes/{document_id}", json={"n": 1}, headers=ASYNC)
    await eventually(lambda: _written_and_says(system, "set aside"), within=20)
    token = answer.headers["Sync-Token"]
    assert await system.pending(token)
    await system.stack.redis_client.flushall()
    system.proxy.remove(rule)

    async def lost() -> bool:
        found = (await system.client.get(f"/sync/{token}?mapping=notes")).json().get("mappings", {})
        return bool(found.get("notes") == "lost")

    await eventually(lost, within=30)
    assert (await system.client.get(f"/notes/{document_id}")).status_code == 404


async def test_what_is_set_aside_after_redis_was_emptied_is_no_drift(own_system: Proxied) -> None:
    """What MongoDB holds is of before; what Redis holds is not compared with it until it is committed."""
    system, document_id = own_system, uuid4().hex
    assert (await system.put(document_id, n=1)).status_code == 201
    await system.stack.worker.stop()
    await system.stack.redis_client.flushall()
    answer = await system.client.put(f"/notes/{document_id}", json={"n": 2}, headers=ASYNC)
    with system.proxy.rule(on("update", "notes").where(replaces(document_id)), item_of(document_id, 13)):
        await system.stack.worker.start(wait=False)
        await eventually(lambda: _written_and_says(system, "set aside"), within=20)
        for _ in range(20):  # the recheck comes by
            await anyio.sleep(0.2)
            assert await system.pending(answer.headers["Sync-Token"])
            assert await system.stack.get(document_id, "notes") == {"id": document_id, "n": 2}
    await eventually(system.is_well, within=30, pause=0.2)
    assert await _holds(system, document_id, {"id": document_id, "n": 2})


@pytest.mark.parametrize("becomes", ["expired", "deleted"])
async def test_no_read_brings_back_what_mongodb_holds_in_place_of_what_is_set_aside(
    system: Proxied, becomes: str
) -> None:
    document_id = uuid4().hex
    assert (await system.put(document_id, n=1)).status_code == 201
    command = "update" if becomes == "expired" else "delete"
    with system.proxy.rule(on(command, "notes").where(holds(document_id)), item_of(document_id, 13)):
        if becomes == "expired":
            answer = await system.client.put(f"/notes/{document_id}", json={"n": 2}, headers=ASYNC)
        else:
            answer = await system.client.delete(f"/notes/{document_id}", headers=ASYNC)
        assert answer.status_code == 202
        await eventually(lambda: _written_and_says(system, "set aside"), within=20)
        if becomes == "expired":
            await system.stack.redis_client.pexpire(f"notes:{document_id}", 1)
            await eventually(lambda: _is_absent(system, document_id))
        for _ in range(20):
            await system.client.get(f"/notes/{document_id}")
            assert await _state(system, answer.headers["Sync-Token"]) == "pending"
            assert not await system.stack.redis_client.exists(f"notes:{document_id}")
            await anyio.sleep(0.1)
    await eventually(system.is_well, within=30, pause=0.2)
    expected = {"id": document_id, "n": 2} if becomes == "expired" else None  # what expired had reached the stream
    assert await system.stack.stored(document_id, "notes") == expected
    assert await _state(system, answer.headers["Sync-Token"]) == "committed"


async def _is_absent(system: Proxied, document_id: str) -> bool:
    return not await system.stack.redis_client.exists(f"notes:{document_id}")


async def _state(system: Proxied, token: str) -> str:
    return str((await system.client.get(f"/sync/{token}?mapping=notes")).json()["mappings"]["notes"])


@pytest.mark.parametrize(
    ("chosen", "action"),
    [
        (on(WRITES), top_error(189, labels=["RetryableWriteError"])),
        (on(WRITES), top_error(1)),
        (on("update", "notes"), item_error(6)),
        (on("update", "notes"), write_concern_error(64)),
        (on("update", "notes"), item_error(11000)),
        (on("insert", "sync_log"), top_error(11600, labels=["RetryableWriteError"])),
        (on("insert", "sync_log"), item_error(11000)),
        (on("createIndexes"), top_error(91)),
        (on("find"), top_error(462, labels=["RetryableError", "SystemOverloadedError"])),
        (on(WRITES), cut()),
    ],
    ids=[
        "stepped down",
        "internal",
        "item",
        "majority",
        "duplicate of nothing",
        "log",
        "duplicate in the log",
        "index",
        "find",
        "cut",
    ],
)
async def test_no_error_makes_a_storm_or_goes_unsaid(system: Proxied, chosen: On, action: Action) -> None:
    document_id = uuid4().hex
    with system.proxy.rule(chosen.each(), action):
        began = monotonic()
        await system.client.put(f"/notes/{document_id}", json={"n": 1}, headers=ASYNC)
        if "createIndexes" not in chosen.names:  # only what is tried again builds indexes
            await eventually(lambda: _is(system, 503), within=2)
        counted = system.proxy.counts.total() - system.proxy.counts["hello"]
        await anyio.sleep(3)
        seconds = monotonic() - began
        sent = system.proxy.counts.total() - system.proxy.counts["hello"] - counted
        assert sent < 2 * 20 * seconds, system.proxy.counts  # two mappings
    await eventually(system.is_well, within=30, pause=0.2)
    assert await system.stack.stored(document_id, "notes") == {"id": document_id, "n": 1}
    assert (await system.readyz()).status_code == 200


async def test_many_duplicates_of_nothing_make_no_storm_and_are_said(own_system: Proxied) -> None:
    """None of the documents is taken, so there is nothing that the others would have to wait for no longer."""
    system = own_system
    with system.proxy.rule(on("update", "notes").each(), item_error(11000, extra={"keyPattern": {"mail": 1}})):
        async with system.stack.redis_client.pipeline(transaction=False) as pipeline:
            for n in range(60):
                pipeline.json().set(f"notes:{n}", "$", {"id": str(n), "mail": str(n)})
            await pipeline.execute()
        await eventually(lambda: _is(system, 503), within=2)
        system.proxy.traffic.reset()
        for _ in range(40):
            assert await _is(system, 503)
            assert "another document has the same value" in (await system.readyz()).text
            await anyio.sleep(0.2)
        commands = system.proxy.counts.keys() - {"hello", "ping"}
        assert system.proxy.traffic.peak(names=commands) <= 2 * 20, system.proxy.counts  # two mappings
    await eventually(system.is_well, within=30, pause=0.2)
    assert await system.stack.mongo_client.test.notes.count_documents({}) == 60


async def test_what_is_in_the_way_of_many_is_asked_for_by_few_queries(own_system: Proxied) -> None:
    stack, proxy = own_system.stack, own_system.proxy
    await stack.mongo_client.test.notes.create_index("mail", unique=True)
    for moved in (False, True):
        stack.worker.freeze()
        async with stack.redis_client.pipeline(transaction=False) as pipeline:
            for n in range(300):
                if moved:
                    pipeline.rename(f"notes:{n}", f"notes:moved-{n}")
                else:
                    pipeline.json().set(f"notes:{n}", "$", {"id": str(n), "mail": str(n)})
            await pipeline.execute()
        proxy.traffic.reset()
        stack.worker.thaw()
        await stack.drained("notes", within=60)
    finds = [seen for seen in proxy.recorded if seen.name == "find" and seen.collection == "notes"]
    assert len(finds) < 60, proxy.counts
    found = {d["id"]: d["mail"] async for d in stack.mongo_client.test.notes.find()}
    assert found == {f"moved-{n}": str(n) for n in range(300)}


async def test_a_primary_that_steps_down_amid_a_batch(system: Proxied) -> None:
    """Some of it is applied, the answer is lost; then nobody is the primary for a while."""
    before, stack = await system.dead_letters(), system.stack
    for seed, code in enumerate((10107, 189, 11600, 91)):
        ids = [f"{code}-{n}" for n in range(12)]
        for document_id in ids[:8]:
            await stack.set(document_id, {"id": document_id, "n": 0}, prefix="notes")
        await stack.drained("notes")
        stack.worker.freeze()
        try:
            for document_id in ids[4:]:
                await stack.set(document_id, {"id": document_id, "n": 1}, prefix="notes")
            await stack.redis_client.delete(*(f"notes:{document_id}" for document_id in ids[:2]))
            answers = [
                system.proxy.add(on(WRITES).sometimes(0.5, seed=seed), top_error(code, labels=["RetryableWriteError"])),
                system.proxy.add(on(("update", "delete"), "notes").next(1), apply_then_cut((0, 2, 5))),
            ]
        finally:
            stack.worker.thaw()
        await eventually(lambda: _says(system, name_of(code)), within=10)  # noqa: B023 awaited at once
        for rule in answers:
            system.proxy.remove(rule)
        await stack.drained("notes", within=30)
        expected = {i: {"id": i, "n": int(n >= 4)} for n, i in enumerate(ids) if n >= 2}
        assert {i: await stack.stored(i, "notes") for i in ids} == dict.fromkeys(ids[:2]) | expected
    assert await system.dead_letters() == before


async def _is(system: Proxied, status: int) -> bool:
    return (await system.readyz()).status_code == status


async def test_the_first_cause_is_kept(system: Proxied) -> None:
    with system.proxy.rule(on("update", "notes").next(1), write_concern_error(64)):
        other = system.proxy.add(on("createIndexes").each(), top_error(1))
        await system.client.put(f"/notes/{uuid4().hex}", json={"n": 1}, headers=ASYNC)
        await eventually(lambda: _says(system, "then"), within=10)
        text = (await system.readyz()).text
        assert "majority" in text, text
        assert "InternalError (1)" in text
        system.proxy.remove(other)
    await eventually(system.is_well, within=30, pause=0.2)
