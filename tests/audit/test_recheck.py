"""What changes is compared a moment later, on every engine, so that what no recipe captured is found within seconds."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import pytest_asyncio

from gears.engines import open_engine
from gears.in_mongo.client import open_client
from gears.in_mongo.store import Store
from gears.in_redis.client import connect
from gears.progress.reconciler_state import ReconcilerState, read_reconciler
from tests.support.engines import ALL_KINDS, KindStack, uncaptured
from tests.support.stack import Stack, eventually
from worker.audit.recheck.changed_keys import MOST_EVENTS, MOST_NOTED, SETTLE, ChangedKeys, Overloaded
from worker.audit.recheck.recheck import Recheck
from worker.reporter import ReconcilerReporter

FLAGS = "notify-keyspace-events"


async def reconciler(stack: Stack) -> ReconcilerState | None:
    """What the reconciler of the mapping `todos` says of itself."""
    return await read_reconciler(stack.redis_client, stack.settings.mappings[0])


async def is_in(stack: Stack, state: str, within: float = 60.0) -> ReconcilerState:
    """Wait until the reconciler is in this state and its first sweep is done."""

    async def probe() -> ReconcilerState | None:
        said = await reconciler(stack)
        return said if said and said.state == state and await sweeps(stack) else None

    found: ReconcilerState = await eventually(probe, within=within)
    return found


async def sweeps(stack: Stack) -> list[str]:
    """Why each sweep of the mapping `todos` was made."""
    reports = stack.mongo_client.test.sync_audits.find({"mapping": "todos"}).sort("started_at", 1)
    return [report["because"] async for report in reports]


async def change(stack: Stack, document_id: str, document: bytes | None) -> None:
    """Set or delete a key as if the recipe were missing: Redis tells it, and it is not captured."""
    engine = await open_engine(stack.redis_client, stack.settings.mappings[0])
    await uncaptured(engine, document_id, document)


async def commit(stack: Stack, document_id: str, document: dict[str, Any]) -> None:
    """A plain client's write, in MongoDB when this returns, and rechecked."""
    await stack.set(document_id, document)
    await eventually(lambda: holds(stack, document_id, document))
    await rechecked(stack)


async def rechecked(stack: Stack) -> None:
    """Wait until a change made from now on would be the only one to be compared."""
    await anyio.sleep(SETTLE)  # what changed until now is due then

    async def probe() -> bool:
        said = await reconciler(stack)
        return said is not None and said.noted == 0

    await eventually(probe)


async def holds(stack: Stack, document_id: str, document: dict[str, Any] | None) -> bool:
    return await stack.stored(document_id) == (None if document is None else {"id": document_id} | document)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ALL_KINDS)
async def listening(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[KindStack]:
    """A server of this kind, MongoDB, and a worker that listens and has made its first sweep."""
    stack = KindStack(tmp_path_factory.mktemp("kind"), request.param)
    try:
        await stack.start_redis()
        await stack.start(stack.mongo, stack.worker)
        await is_in(stack, "listening")
        yield stack
    finally:
        await stack.close()


async def test_a_write_that_was_not_captured_is_found_within_seconds(listening: KindStack, new_id: str) -> None:
    swept = await sweeps(listening)
    await change(listening, new_id, b'{"n":1}')
    await eventually(lambda: holds(listening, new_id, {"n": 1}), within=5)
    await change(listening, new_id, b'{"n":2}')
    await eventually(lambda: holds(listening, new_id, {"n": 2}), within=5)
    assert await sweeps(listening) == swept, "a sweep found it"


async def test_a_delete_that_was_not_captured_is_found_within_seconds(listening: KindStack, new_id: str) -> None:
    await commit(listening, new_id, {"n": 1})
    await change(listening, new_id, None)
    await eventually(lambda: holds(listening, new_id, None), within=5)
    assert await listening.mongo_client.test.sync_tombstones.find_one({"_id": f"todos:{new_id}"})


async def test_what_expires_is_not_taken_for_deleted(listening: KindStack, new_id: str) -> None:
    await commit(listening, new_id, {"n": 1, "m": 1})
    key = f"todos:{new_id}"
    await listening.redis_client.execute_command("JSON.DEL", key, "$.m")
    await eventually(lambda: holds(listening, new_id, {"n": 1}))
    await listening.redis_client.pexpire(key, 1)

    async def expired() -> bool:
        return not await listening.redis_client.exists(key)

    await eventually(expired)
    await rechecked(listening)
    assert await holds(listening, new_id, {"n": 1})


async def test_what_comes_back_is_not_deleted(listening: KindStack, new_id: str) -> None:
    await commit(listening, new_id, {"n": 1})
    await change(listening, new_id, None)
    await change(listening, new_id, b'{"n":1}')
    await rechecked(listening)
    assert await holds(listening, new_id, {"n": 1})

    async def has_its_id() -> bool:
        return bool(await listening.get(new_id) == {"id": new_id, "n": 1})

    await eventually(has_its_id)


async def test_what_happened_to_a_key_since_its_delete_spares_it(listening: KindStack, new_id: str) -> None:
    """It was written again and then expired, for instance: absent all the same."""
    client = open_client(listening.mongo_uri, timeout=5)
    mapping = listening.settings.mappings[0]
    async with connect(listening.redis_url, timeout=5) as redis:
        engine = await open_engine(redis, mapping)
        reporter = ReconcilerReporter(redis, mapping, "the test")
        recheck = Recheck(
            redis, Store(client, mapping), engine, reporter, pytest.fail, pytest.fail, patience=5, timeout=5
        )
        await recheck._changes.heard(float("inf"))
        recheck._changes.event(f"todos:{new_id}-1".encode(), "expired")
        assert await recheck._delete([f"todos:{new_id}-{n}".encode() for n in range(2)]) == 1
    client.close()
    assert await eventually(lambda: tombstone(listening, new_id)) == f"todos:{new_id}-0"


async def tombstone(stack: Stack, document_id: str) -> str | None:
    found = await stack.mongo_client.test.sync_tombstones.find_one({"_id": {"$regex": document_id}})
    return None if found is None else str(found["_id"])


async def test_what_was_captured_is_left_alone(listening: KindStack, new_id: str) -> None:
    await rechecked(listening)
    before = await reconciler(listening)
    assert before is not None
    for n in range(50):
        await listening.set(f"{new_id}-{n}", {"n": n})
    await listening.redis_client.delete(*(f"todos:{new_id}-{n}" for n in range(0, 50, 2)))

    async def compared() -> bool:
        said = await reconciler(listening)
        return said is not None and said.rechecked >= before.rechecked + 50

    await eventually(compared)
    after = await reconciler(listening)
    assert after is not None
    assert (after.repaired, after.deletes) == (before.repaired, before.deletes)
    assert after.notifications >= before.notifications + 75
    assert await listening.todos.count_documents({"id": {"$regex": f"^{new_id}"}}) == 25


async def test_a_lost_subscription_is_followed_by_a_sweep(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await own_stack.set("a", {"n": 1})
    await is_in(own_stack, "listening")
    await own_stack.todos.update_one({"id": "a"}, {"$set": {"n": 2}})  # which Redis doesn't tell
    await own_stack.redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await eventually(lambda: holds(own_stack, "a", {"n": 1}))

    async def swept() -> bool:
        return [because.partition(":")[0] for because in await sweeps(own_stack)] == [
            "start",
            "changes may have been missed, since reconciling had stopped",
        ]

    await eventually(swept)
    await change(own_stack, "b", b'{"n":1}')
    await eventually(lambda: holds(own_stack, "b", {"n": 1}), within=5)


async def test_under_overload_it_stops_listening_and_sweeps_once_when_it_is_over(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo, own_stack.worker)
    await is_in(own_stack, "listening")
    assert await own_stack.redis_client.pubsub_numpat() == 2, "todos and notes"
    async with own_stack.redis_client.pipeline(transaction=False) as pipeline:
        for n in range(MOST_EVENTS + 1):
            pipeline.execute_command("JSON.SET", f"todos:{n % 20}", "$", f'{{"n":{n}}}')
        await pipeline.execute()
    said = await is_in(own_stack, "overloaded")
    assert "changes within" in said.reason
    assert await own_stack.redis_client.pubsub_numpat() == 1
    await own_stack.drained()
    await change(own_stack, "missed", b'{"n":1}')
    assert await sweeps(own_stack) == ["start"]
    await is_in(own_stack, "listening", within=30)
    await eventually(lambda: holds(own_stack, "missed", {"n": 1}))

    async def swept() -> bool:
        return await sweeps(own_stack) == ["start", "changes were not listened to"]

    await eventually(swept)
    lines = [line for line in own_stack.worker.log.read_text().splitlines() if "listening to changes" in line]
    assert len(lines) == 2, "one when it begins, one when it ends"


async def test_where_redis_may_not_be_configured_it_sees_whether_it_is_told(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    redis = own_stack.redis_client
    await redis.execute_command("ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-config")
    worker = own_stack.another_worker(
        "restricted", REDIS_URL=own_stack.redis_url.replace("redis://", "redis://worker:secret@")
    )
    try:
        await worker.start()
        said = await is_in(own_stack, "deaf")
        assert "set notify-keyspace-events to 'Kgdxe'" in said.reason
        await redis.config_set(FLAGS, "Kgdxe")
        await is_in(own_stack, "listening", within=30)
        await change(own_stack, "a", b'{"n":1}')
        await eventually(lambda: holds(own_stack, "a", {"n": 1}), within=10)
        assert not await redis.exists("sync:{todos}:probe")
    finally:
        await worker.kill()


async def flags(stack: Stack) -> set[str]:
    return set((await stack.redis_client.config_get(FLAGS))[FLAGS] or "")


async def test_the_setting_is_added_to_and_put_back(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    redis = own_stack.redis_client
    await redis.config_set(FLAGS, "Elx")
    await own_stack.worker.start()
    await is_in(own_stack, "listening")
    assert await flags(own_stack) == set("ElxKgde")
    for document_id in ("missed", "again"):  # each time another mapping's reconciler may be the first to put it back
        await redis.config_set(FLAGS, "")
        await change(own_stack, document_id, b'{"n":1}')
        await eventually(lambda: holds(own_stack, document_id, {"n": 1}), within=60)  # noqa: B023 awaited at once
        assert await flags(own_stack) == set("Kgdxe")

    async def swept() -> bool:
        return (await sweeps(own_stack))[-1] == "keyspace notifications had been switched off"

    await eventually(swept)


def test_keys_are_due_a_while_after_their_last_event_and_not_too_many_are_noted() -> None:
    changed = ChangedKeys()
    changed.note(b"a", "json.set", 0.0)
    changed.note(b"b", "json.set", 0.25)
    changed.note(b"a", "del", 0.5)
    assert changed.take(SETTLE, 10) == {}
    assert changed.take(SETTLE + 0.25, 10) == {b"b": "json.set"}
    assert changed.take(SETTLE + 0.5, 0) == {}
    assert b"a" in changed
    assert changed.take(SETTLE + 0.5, 1) == {b"a": "del"}
    assert len(changed) == 0
    for n in range(MOST_NOTED):
        changed.note(b"%d" % n, "json.set", 1.0)
    changed.note(b"0", "json.set", 1.0)
    with pytest.raises(Overloaded):
        changed.note(b"one more", "json.set", 1.0)
