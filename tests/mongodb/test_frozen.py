"""MongoDB or Redis is frozen: reads say what is true of reads, commands say whom they wait for, and all of it soon."""

import os
import signal
import subprocess
import sys
from asyncio import gather
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio

from gears.in_mongo.client import close_client, open_client, ping
from tests.support.stack import Process, Stack, eventually
from tests.wire import WireProxy, delay_answer, on
from tests.wire.actions import Exchange, pass_on

SOON = 3.5
"""Seconds: two, and what a slow machine takes."""

STARTED = 8.0
"""Seconds within which a command has started and said something; an answer would have taken longer than ten."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with the usual deadlines."""
    stack = Stack(tmp_path_factory.mktemp("frozen"))
    try:
        await stack.start()
        for n in range(5):
            put = await stack.client.put(f"/notes/{n}", json={"n": n})
            assert put.status_code == 201
        stack.env["TOKEN"] = put.headers["Sync-Token"]
        assert (await stack.client.get("/notes")).status_code == 200
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(params=["mongo", "redis"], loop_scope="session")
async def frozen(request: pytest.FixtureRequest, running: Stack) -> AsyncIterator[str]:
    server = getattr(running, request.param)
    server.freeze()
    try:
        yield request.param
    finally:
        server.thaw()
        await running.worker.wait_ready()


async def soon(running: Stack, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer to a request, which must come soon."""
    began = monotonic()
    answer = await running.client.request(method, path, **options)
    assert monotonic() - began < SOON
    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/notes/unknown", "/notes", "/notes?limit=2&after=1"])
async def test_reads_say_what_is_true_of_reads(running: Stack, method: str, path: str) -> None:
    running.mongo.freeze()
    try:
        answer = await soon(running, method, path)
    finally:
        running.mongo.thaw()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    if method == "GET":
        assert answer.json()["type"] == "urn:writethrough:problem:mongo-unavailable"
        assert "MongoDB did not answer within 2 s" in answer.json()["detail"]
        assert "written" not in answer.text


async def test_many_who_read_the_same_wait_no_longer_than_one(running: Stack, frozen: str) -> None:
    answers = await gather(*(soon(running, "GET", "/notes/unknown") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["type"] for answer in answers} == {f"urn:writethrough:problem:{frozen}-unavailable"}
    assert all(answer.headers["Retry-After"] for answer in answers)
    assert not any("written" in answer.text for answer in answers)


async def test_many_who_connect_to_redis_wait_no_longer_than_one(running: Stack) -> None:
    running.redis.freeze()
    try:
        await running.client.delete("/notes/unknown")  # its connection is given up
        began = monotonic()
        answers = await gather(*(running.client.delete(f"/notes/unknown-{n}") for n in range(5)))
        assert monotonic() - began < running.settings.redis_timeout + SOON
    finally:
        running.redis.thaw()
        await running.worker.wait_ready()
    assert {answer.status_code for answer in answers} == {503}


async def test_what_is_asked_about_the_system_is_answered_soon(running: Stack, frozen: str) -> None:
    async def not_ready() -> bool:
        answer = await running.client.get("/readyz")
        return answer.status_code == 503 and says_why(answer.json()["detail"], f"{frozen}: ")

    await eventually(not_ready, within=SOON)
    overview, token, _ = await gather(
        *(soon(running, "GET", path) for path in ("/sync", f"/sync/{running.env['TOKEN']}", "/sync/audits"))
    )
    assert overview.status_code == 200
    assert says_why(overview.json()["errors"][frozen])
    assert token.status_code == {"mongo": 200, "redis": 503}[frozen]
    assert "written" not in token.text


def says_why(text: str, beginning: str = "") -> bool:
    """Whether it says that a server doesn't answer, in our words or the driver's."""
    return text.startswith(beginning) and any(words in text for words in ("no answer within", "timed out"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("PATCH", {"json": {"n": 1}}),
        ("PUT", {"json": {"n": 1}, "headers": {"If-Match": '"x"'}}),
        ("DELETE", {}),
    ],
)
async def test_writes_that_must_read_first_say_that_nothing_was_written(
    running: Stack, method: str, options: dict[str, Any]
) -> None:
    before = await running.redis_client.xinfo_stream("sync:{notes}")
    running.mongo.freeze()
    try:
        answer = await soon(running, method, "/notes/unknown", **options)
    finally:
        running.mongo.thaw()
    assert answer.status_code == 503
    assert "nothing was written" in answer.json()["title"]
    assert (await running.redis_client.xinfo_stream("sync:{notes}"))["entries-added"] == before["entries-added"]


async def test_the_worker_says_so_soon(running: Stack) -> None:
    running.mongo.freeze()
    try:
        began = monotonic()
        await running.client.put("/notes/0", json={"n": 7}, headers={"Prefer": "respond-async"})

        async def said() -> bool:
            return b"not done within 2 s" in running.worker.log.read_bytes()

        await eventually(said, within=SOON)
        assert monotonic() - began < SOON
        assert (await running.client.get("/readyz")).status_code == 503
    finally:
        running.mongo.thaw()
    await running.drained("notes", within=30)


async def test_the_worker_stops_at_once_and_says_soon_that_it_cannot_start(running: Stack) -> None:
    running.mongo.freeze()
    try:
        await running.client.put("/notes/0", json={"n": 8}, headers={"Prefer": "respond-async"})

        async def held_up() -> bool:
            return b"not done within 2 s" in running.worker.log.read_bytes()[said:]

        said = running.worker.log.stat().st_size
        await eventually(held_up, within=STARTED)
        assert await running.worker.stop() < SOON
        assert running.worker.exit_code == 0

        said = running.worker.log.stat().st_size
        await running.worker.start(wait=False)
        await eventually(held_up, within=2 * STARTED)
    finally:
        running.mongo.thaw()
    await running.worker.wait_ready()
    await running.drained("notes", within=30)
    assert await running.stored("0", "notes") == {"id": "0", "n": 8}


def command(stack: Stack, words: Sequence[str], errors: Path, **env: str) -> subprocess.Popen[bytes]:
    with errors.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=os.environ | stack.env | env, stdout=subprocess.DEVNULL, stderr=file
        )


@pytest.mark.parametrize("words", ["worker audit", "worker audit --repair", "worker audit --list", "worker restore"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_commands_say_whom_they_wait_for_and_obey(
    running: Stack, frozen: str, words: str, number: signal.Signals, tmp_path: Path
) -> None:
    errors = tmp_path / "stderr"
    process = command(running, words.split(), errors)
    try:
        names = {"mongo": f"MongoDB at 127.0.0.1:{running.setup.mongo_port}"}
        names["redis"] = f"Redis at 127.0.0.1:{running.setup.redis_port}"

        async def said() -> bool:
            return f"waiting for {names[frozen]}" in errors.read_text()

        await eventually(said, within=STARTED)
        process.send_signal(number)
        with anyio.fail_after(4):
            await anyio.to_thread.run_sync(process.wait)
        assert process.returncode == 128 + number
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("redis", "gears status"),
        ("redis", "gears install"),
        ("redis", "gears access redis --apply"),
        ("mongo", "gears access mongo --apply"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_commands_that_need_one_server_do_the_same(
    running: Stack, server: str, words: str, number: signal.Signals, tmp_path: Path
) -> None:
    errors = tmp_path / "stderr"
    process = command(running, words.split(), errors, WT_REDIS_TIMEOUT="30", WORKER_PASSWORD="not-set-up")
    frozen: Process = getattr(running, server)
    frozen.freeze()  # before the command has started, which takes longer
    try:

        async def said() -> bool:
            return f"waiting for {server.title()}".lower() in errors.read_text().lower()

        await eventually(said, within=STARTED)
        process.send_signal(number)
        with anyio.fail_after(4):
            await anyio.to_thread.run_sync(process.wait)
        assert process.returncode == 128 + number
    finally:
        process.kill()
        process.wait()
        frozen.thaw()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_audit_in_whose_midst_mongodb_freezes_says_so_and_obeys(
    running: Stack, number: signal.Signals, tmp_path: Path
) -> None:
    errors = tmp_path / "stderr"
    async with WireProxy(running.setup.mongo_port) as proxy:

        async def freeze(exchange: Exchange) -> None:
            await pass_on(exchange)
            proxy.freeze()

        with proxy.rule(on("find", "notes"), freeze):
            words = ["worker", "audit", "--mapping", "notes"]
            process = command(running, words, errors, MONGO_URI=proxy.uri, WT_AUDIT_RATE="0.1")
            try:

                async def said() -> bool:
                    return f"waiting for MongoDB at 127.0.0.1:{proxy.port}" in errors.read_text()

                await eventually(said, within=STARTED)
                assert proxy.counts["find"], "it had begun"
                process.send_signal(number)
                with anyio.fail_after(4):
                    await anyio.to_thread.run_sync(process.wait)
                assert process.returncode == 128 + number
            finally:
                process.kill()
                process.wait()


async def test_taking_leave_of_a_frozen_mongodb_takes_no_time(running: Stack) -> None:
    async with WireProxy(running.setup.mongo_port) as proxy:
        client = open_client(proxy.uri, timeout=10)
        with proxy.rule(on("ping"), delay_answer(0.2)):  # at the same time, so that there are sessions to end
            await gather(*(ping(client, timeout=10) for _ in range(3)))
        proxy.freeze()
        began = monotonic()
        close_client(client)
        assert monotonic() - began < 2


async def test_a_command_goes_on_when_the_server_does(running: Stack, tmp_path: Path) -> None:
    running.mongo.freeze()
    errors = tmp_path / "stderr"
    process = command(running, ["worker", "audit"], errors)
    try:

        async def said() -> bool:
            return "waiting for MongoDB" in errors.read_text()

        await eventually(said, within=STARTED)
    finally:
        running.mongo.thaw()
    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(process.wait)
    assert process.returncode == 0, errors.read_text()
