"""MongoDB is frozen: reads say what is true of reads, commands say whom they wait for, and all of it soon."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import monotonic

import anyio
import pytest
import pytest_asyncio

from tests.stack import Stack, eventually

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
            assert (await stack.client.put(f"/notes/{n}", json={"n": n})).status_code == 201
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


@pytest.mark.parametrize("path", ["/notes/unknown", "/notes", "/notes?limit=2&after=1"])
async def test_reads_say_what_is_true_of_reads(running: Stack, path: str) -> None:
    running.mongo.freeze()
    try:
        began = monotonic()
        answer = await running.client.get(path)
        took = monotonic() - began
    finally:
        running.mongo.thaw()
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:writethrough:problem:mongo-unavailable"
    assert "written" not in answer.text
    assert answer.headers["Retry-After"]
    assert took < SOON


async def test_writes_that_must_read_first_say_that_nothing_was_written(running: Stack) -> None:
    running.mongo.freeze()
    try:
        began = monotonic()
        answer = await running.client.patch("/notes/unknown", json={"n": 1})
        took = monotonic() - began
    finally:
        running.mongo.thaw()
    assert answer.status_code == 503
    assert "nothing was written" in answer.json()["title"]
    assert took < SOON


async def test_the_worker_says_so_soon(running: Stack) -> None:
    running.mongo.freeze()
    try:
        began = monotonic()
        await running.client.put("/notes/0", json={"n": 7}, headers={"Prefer": "respond-async"})

        async def said() -> bool:
            return b"no answer for 2 s" in running.worker.log.read_bytes()

        await eventually(said, within=SOON)
        assert monotonic() - began < SOON
        assert (await running.client.get("/readyz")).status_code == 503
    finally:
        running.mongo.thaw()
    await running.drained("notes", within=30)


def command(stack: Stack, words: Sequence[str], errors: Path) -> subprocess.Popen[bytes]:
    with errors.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=os.environ | stack.env, stdout=subprocess.DEVNULL, stderr=file
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
