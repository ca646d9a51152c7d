"""What the API answers while something it needs is away, and that it goes on by itself when that is back."""

from asyncio import gather
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest

from gears.engines import open_engine
from service.http.problems import Problem
from service.http.writes_in_flight import MAX_BYTES, MAX_WRITES, Admission
from tests.support.stack import Stack, eventually, free_port


def kind(answer: httpx.Response) -> tuple[int, str]:
    """Status and name of a problem."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Sync-Token" not in answer.headers
    return answer.status_code, answer.json()["type"].removeprefix("urn:writethrough:problem:")


async def checks(stack: Stack) -> dict[str, str]:
    """What `/readyz` says, each check by name."""
    with anyio.fail_after(3):
        checks: dict[str, str] = (await stack.client.get("/readyz")).json()["checks"]
    return checks


async def ready(stack: Stack) -> bool:
    return (await stack.client.get("/readyz")).status_code == 200


async def committed(stack: Stack, token: str) -> bool:
    return bool((await stack.client.get(f"/sync/{token}?mapping=notes")).json()["committed"])


async def test_it_starts_alone_and_gets_ready_as_its_servers_come(own_stack: Stack, new_id: str) -> None:
    stack, api, path = own_stack, own_stack.client, f"/notes/{new_id}"
    await stack.start(stack.api)
    assert (await api.get("/healthz")).status_code == 200
    not_ready, documents, overview, metrics = await gather(
        *(api.get(each) for each in ("/readyz", "/notes", "/sync", "/metrics"))
    )
    assert kind(not_ready) == (503, "not-ready")
    assert all(outcome != "ok" for outcome in not_ready.json()["checks"].values())
    for answer in (await api.get(path), await api.put(path, json={}), await api.delete(path)):
        assert kind(answer) == (503, "redis-unavailable")
    assert kind(documents) == (503, "mongo-unavailable")
    assert kind(await api.get("/sync/1-0")) == (503, "redis-unavailable")
    notes = overview.json()["mappings"]["notes"]
    assert notes["watermark"] is None
    assert notes["errors"]["backlog"]
    assert 'writethrough_up{server="redis"} 0.0' in metrics.text
    assert "writethrough_ready 0.0" in metrics.text

    await stack.start(stack.redis)
    put, get, state = await gather(api.put(path, json={}), api.get(path), checks(stack))
    assert kind(put) == (503, "capture-missing")
    assert kind(get) == (503, "mongo-unavailable")
    assert state["redis"] == "ok"
    assert "not installed" in state["capture:notes"]
    assert state["worker:notes"].startswith("no worker")

    await stack.start(stack.mongo, stack.worker)
    await eventually(lambda: ready(stack))
    assert (await api.put(path, json={})).status_code == 201
    assert await stack.stored(new_id, "notes") == {"id": new_id}
    log = stack.api.log.read_text()
    assert log.count('"event": "not ready"') == 1
    assert log.count('"event": "ready"') == 1
    assert "Traceback" not in log


async def test_mongodb_goes_and_comes_back(own_stack: Stack, new_id: str) -> None:
    stack, api, path = own_stack, own_stack.client, f"/notes/{new_id}"
    await stack.start()
    await api.put(path, json={"n": 1})
    await api.put(f"{path}-deleted", json={"n": 1})

    async def needs_mongodb(method: str, path: str, body: Any) -> None:
        assert kind(await api.request(method, path, json=body)) == (503, "mongo-unavailable")

    await stack.mongo.kill()

    late = await api.put(path, json={"n": 2}, headers={"Prefer": "wait=1"})
    assert kind(late) == (504, "not-confirmed")
    token = late.headers["Sync-Token"]
    assert late.json()["token"] == token
    assert (await api.get(late.json()["sync"])).json()["mappings"] == {"notes": "pending"}
    assert (await api.get(path)).json()["n"] == 2
    assert (await api.put(f"{path}-new", json={}, headers={"Prefer": "respond-async"})).status_code == 202
    assert kind(await api.delete(f"{path}-deleted", headers={"Prefer": "wait=0"})) == (504, "not-confirmed")
    async with anyio.create_task_group() as tasks:
        for method, unknown, body in (
            ("GET", f"{path}-unknown", None),
            ("POST", "/notes", {"id": f"{new_id}-unknown"}),
            ("DELETE", f"{path}-unknown", None),
            ("PATCH", f"{path}-unknown", {}),
        ):
            tasks.start_soon(needs_mongodb, method, unknown, body)
    assert "written" not in (await api.get(f"{path}-unknown")).text
    assert "nothing was written" in (await api.patch(f"{path}-unknown", json={})).text
    queued = await api.post("/notes", json={"n": 3}, headers={"Prefer": "wait=0"})
    assert kind(queued) == (504, "not-confirmed")
    assert (await api.get(queued.headers["Location"])).json()["n"] == 3
    assert (await checks(stack))["mongo"] != "ok"

    await stack.mongo.start()
    await eventually(lambda: committed(stack, token))
    await stack.drained("notes")
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 2}
    assert await stack.stored(f"{new_id}-new", "notes") == {"id": f"{new_id}-new"}
    assert await stack.stored(f"{new_id}-deleted", "notes") is None
    await eventually(lambda: ready(stack))


async def test_a_pending_delete_wins_and_waiting_writes_are_told_when_the_api_ends(
    own_stack: Stack, new_id: str
) -> None:
    stack, api, path = own_stack, own_stack.client, f"/notes/{new_id}"
    await stack.start()
    for suffix in "abc":
        assert (await api.put(f"{path}{suffix}", json={"n": 1})).status_code == 201
    await stack.worker.stop()

    for suffix in "abc":
        deleted = await api.delete(f"{path}{suffix}", headers={"Prefer": "respond-async"})
        assert deleted.status_code == 202
        assert await stack.stored(f"{new_id}{suffix}", "notes") is not None
        assert (await api.get(f"{path}{suffix}")).status_code == 404
        assert (await api.delete(f"{path}{suffix}")).status_code == 404
        assert (await api.patch(f"{path}{suffix}", json={})).status_code == 404
    at_once = {"Prefer": "wait=0"}
    assert kind(await api.put(f"{path}a", json={"n": 2}, headers=at_once | {"If-None-Match": "*"}))[0] == 504
    assert kind(await api.post("/notes", json={"id": f"{new_id}b", "n": 2}, headers=at_once))[0] == 504
    assert (await checks(stack))["worker:notes"].startswith("no worker")

    answers: list[httpx.Response] = []

    async def write(number: int) -> None:
        answers.append(await api.put(f"{path}-{number}", json={}, headers={"Prefer": "wait=30"}))

    waiting = await stack.redis_client.xlen("sync:{notes}") + 5

    async def all_wait() -> bool:
        return bool(await stack.redis_client.xlen("sync:{notes}") == waiting)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(write, number)
        await eventually(all_wait)
        async with await anyio.connect_tcp("127.0.0.1", stack.setup.port) as slow:
            await slow.send(
                f"PUT {path}-slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Content-Length: 99\r\n\r\n{".encode()
            )
            assert await stack.api.stop() < 5
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # when the API had not begun to read it
                assert b"urn:writethrough:problem:shutting-down" in await slow.receive()
    assert [kind(answer) for answer in answers] == [(504, "not-confirmed")] * 5
    assert "Traceback" not in stack.api.log.read_text()

    await stack.start(stack.worker, stack.api)
    await stack.drained("notes")
    assert await stack.stored(f"{new_id}a", "notes") == {"id": f"{new_id}a", "n": 2}
    assert await stack.stored(f"{new_id}b", "notes") == {"id": f"{new_id}b", "n": 2}
    assert await stack.stored(f"{new_id}c", "notes") is None
    assert await stack.stored(f"{new_id}-4", "notes") == {"id": f"{new_id}-4"}


async def test_redis_freezes_and_dies_and_comes_back(own_stack: Stack, new_id: str) -> None:
    stack, api, path = own_stack, own_stack.client, f"/notes/{new_id}"
    await stack.start()
    assert (await api.put(path, json={"n": 1})).status_code == 201
    await anyio.sleep(1.1)  # for the append-only file, which is synced every second

    stack.redis.freeze()
    unknown, read, state = await gather(api.put(path, json={"n": 2}), api.get(path), checks(stack))
    assert kind(unknown) == (504, "outcome-unknown")
    assert "Sync-Token" not in unknown.headers
    assert kind(read) == (503, "redis-unavailable")
    assert state["redis"] != "ok"
    stack.redis.thaw()
    await eventually(lambda: ready(stack))
    assert (await api.put(path, json={"n": 3})).status_code == 200

    await stack.redis_client.publish("sync:{notes}:committed", b"nonsense")
    assert (await api.put(path, json={"n": 3})).status_code == 200

    await stack.redis.kill()
    assert kind(await api.put(path, json={"n": 4})) == (503, "redis-unavailable")
    await stack.redis.start()
    await eventually(lambda: ready(stack))
    assert (await api.put(path, json={"n": 5})).status_code == 200
    assert await stack.stored(new_id, "notes") == {"id": new_id, "n": 5}


async def test_nothing_is_written_that_cant_be_captured_or_kept(
    tmp_path_factory: pytest.TempPathFactory, new_id: str
) -> None:
    stack = Stack(tmp_path_factory.mktemp("limits"), WT_BACKLOG_LIMIT="3")
    api, path = stack.client, f"/notes/{new_id}"
    try:
        await stack.start()  # so that a committer has looked whether Redis has forgotten anything
        await stack.worker.kill()
        engine = await open_engine(stack.redis_client, stack.settings.mappings[1])

        async def refused(expected: str) -> None:
            for method, body in (("PUT", {"n": 2}), ("PATCH", {"n": 2}), ("DELETE", None)):
                answer = await api.request(method, path, json=body)
                if (method, expected) != ("DELETE", "redis-refused"):  # a delete makes room
                    assert kind(answer) == (503, expected)
                    assert (await api.get(path)).json() == {"id": new_id, "n": 1}

        assert (await api.put(path, json={"n": 1}, headers={"Prefer": "respond-async"})).status_code == 202
        await engine.remove()
        await refused("capture-missing")
        assert "not installed" in (await checks(stack))["capture:notes"]
        await engine.install()

        for _ in range(2):
            assert (await api.put(path, json={"n": 1}, headers={"Prefer": "respond-async"})).status_code == 202
        await refused("backlog-full")
        await anyio.sleep(0.6)  # checks are made anew after half a second
        assert "as many as allowed" in (await checks(stack))["backlog:notes"]
        await stack.redis_client.xtrim("sync:{notes}", maxlen=0)

        await stack.redis_client.config_set("maxmemory", "1mb")
        await refused("redis-refused")
    finally:
        await stack.close()


async def test_two_apis_are_as_good_as_one(stack: Stack, api: httpx.AsyncClient, new_id: str) -> None:
    path = f"/notes/{new_id}"
    port = free_port()
    other = stack.another_api("api2", port)
    await other.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as api2:
            tag = (await api.put(path, json={})).headers["ETag"]
            assert (await api2.get(path, headers={"If-None-Match": tag})).status_code == 304
            assert (await api2.post("/notes", json={"id": new_id})).status_code == 409

            async def patch(client: httpx.AsyncClient, number: int) -> None:
                assert (await client.patch(path, json={str(number): number})).status_code == 200

            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(patch, (api, api2)[number % 2], number)
            expected: dict[str, Any] = {"id": new_id} | {str(number): number for number in range(10)}
            assert (await api2.get(path)).json() == await stack.stored(new_id, "notes") == expected
    finally:
        await other.kill()


def test_memory_for_writes_in_flight_is_bounded() -> None:
    admission = Admission()
    with admission.admit() as ticket:
        ticket.begin()
        ticket.hold(MAX_BYTES)
        with admission.admit() as another, pytest.raises(Problem, match="in flight"):
            another.hold(1)
        assert admission.writes == 1
    assert (admission.writes, admission.bytes) == (0, 0)
    admission.writes = MAX_WRITES
    with admission.admit() as ticket, pytest.raises(Problem, match="in flight"):
        ticket.begin()
    assert admission.writes == MAX_WRITES
