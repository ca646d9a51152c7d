"""`writethrough tail`: what is committed, as it happens."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from bson import Int64
from typer.testing import CliRunner

from gears.contract.mapping import parse_mappings
from gears.contract.write_tokens import EntryId, Token
from gears.in_mongo.client import close_client, open_client
from gears.in_mongo.store import Store
from gears.in_redis.client import connect
from gears.progress.tail import Committed, Follower, Outcome, Skipped, outcome_of
from gears.progress.watermark import encode_commit
from tests.support.stack import Stack, eventually, logged
from tests.wire import WireProxy
from writethrough.__main__ import app

PIPE_BYTES = 4096


class Tail:
    """`writethrough tail` in a process of its own; what it prints is read, unless it isn't."""

    def __init__(self, stack: Stack, words: str, folder: Path, *, read: bool = True, **env: str) -> None:
        self.stack = stack
        self._output, self._errors = folder / "stdout", folder / "stderr"
        self._reading, written = os.pipe()
        fcntl.fcntl(written, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "writethrough", "tail", *words.split()],
                env=os.environ | stack.env | env,
                stdout=output if read else written,
                stderr=errors,
            )
        os.close(written)

    @property
    def lines(self) -> list[str]:
        return self._output.read_text().splitlines()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    async def follows(self, *, times: int = 1) -> None:
        """Wait until it has begun to follow commits so often."""

        async def following() -> bool:
            assert self.process.poll() is None, self.errors
            return self.errors.count("following") == times

        await eventually(following, within=90)

    async def of(self, document_id: str, count: int) -> list[dict[str, Any]]:
        """So many reports on a document."""

        async def told() -> list[dict[str, Any]]:
            found = [each for each in map(json.loads, self.lines) if each.get("id") == document_id]
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = await eventually(told, within=60)
        return found

    @property
    def unread(self) -> int:
        """Bytes that wait in the pipe."""
        return int.from_bytes(fcntl.ioctl(self._reading, termios.FIONREAD, bytes(4)), sys.byteorder)

    def hang_up(self) -> None:
        """Read no more."""
        os.close(self._reading)
        self._reading = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._reading >= 0:
            self.hang_up()


@contextmanager
def tailing(stack: Stack, words: str, folder: Path, *, read: bool = True, **env: str) -> Iterator[Tail]:
    tail = Tail(stack, words, folder, read=read, **env)
    try:
        yield tail
    finally:
        tail.close()


async def test_what_is_committed_is_told_also_after_servers_were_away(
    stack: Stack, api: httpx.AsyncClient, new_id: str, tmp_path: Path
) -> None:
    async with WireProxy(stack.setup.mongo_port) as proxy:
        before = await subscribers(stack)
        with tailing(stack, "todos --json", tmp_path, MONGO_URI=proxy.uri) as tail:
            await tail.follows()
            await api.put(f"/notes/{new_id}", json={})
            await api.put(f"/todos/{new_id}", json={"name": "x"})
            await tail.of(new_id, 1)
            await api.delete(f"/todos/{new_id}")
            written, deleted = await tail.of(new_id, 2)
            assert (written["mapping"], written["outcome"], deleted["outcome"]) == ("todos", "written", "deleted")
            assert 0 <= written["seconds"] < 60
            versions = [tuple(map(int, each["version"].split("."))) for each in (written, deleted)]
            assert versions == sorted(versions)

            for client in await subscribers(stack) - before:
                await stack.redis_client.client_kill_filter(_id=client)
            await tail.follows(times=2)
            await api.put(f"/todos/{new_id}-1", json={"name": "x"})
            assert (await tail.of(f"{new_id}-1", 1))[0]["outcome"] == "written"

            proxy.freeze()
            await api.put(f"/todos/{new_id}-2", json={"name": "x"})

            async def waits() -> bool:
                return f"waiting for MongoDB at 127.0.0.1:{proxy.port}" in tail.errors

            await eventually(waits, within=60)
            proxy.thaw()
            await tail.of(f"{new_id}-2", 1)
            assert "Traceback" not in tail.errors

            tail.process.send_signal(signal.SIGINT)
            assert await ended(tail) == 130


async def subscribers(stack: Stack) -> set[str]:
    """Ids of the connections that listen to channels."""
    return {client["id"] for client in await stack.redis_client.client_list(_type="pubsub")}


async def ended(tail: Tail) -> int:
    """The exit code."""
    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(tail.process.wait)


async def test_it_obeys_at_once_also_while_nobody_reads(
    stack: Stack, api: httpx.AsyncClient, new_id: str, tmp_path: Path
) -> None:
    with tailing(stack, "", tmp_path, read=False) as tail:
        await tail.follows()
        for n in range(10):
            await stack.set(f"{new_id}-{n}-{'x' * 900}", {}, "notes")

        async def has_begun() -> bool:  # and it can't write all of it
            return tail.unread > 0

        await eventually(has_begun, within=60)
        await stack.drained("notes", within=60)
        tail.process.send_signal(signal.SIGTERM)
        assert await ended(tail) == 143


async def test_it_ends_when_its_reader_does(stack: Stack, api: httpx.AsyncClient, tmp_path: Path) -> None:
    with tailing(stack, "todos", tmp_path, read=False) as tail:
        await tail.follows()
        tail.hang_up()
        await api.put("/todos/told", json={"name": "x"})
        assert await ended(tail) == 141
        assert len(tail.errors.splitlines()) == 1


@pytest.mark.parametrize("words", ["nothing", "todos"])
def test_what_keeps_it_from_its_work_is_said_in_one_line(words: str) -> None:
    away = {"REDIS_URL": "redis://127.0.0.1:1/0", "MONGO_URI": "mongodb://127.0.0.1:1"}
    ended = CliRunner().invoke(app, ["tail", words], env=away | {"MAPPINGS": "todos=test.todos:id"})
    assert (ended.exit_code, ended.stdout) == (2, "")
    said = "there is no mapping 'nothing'" if words == "nothing" else "REDIS_URL is right"
    assert said in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("deleted_at", "refused", "aside", "outcome"),
    [
        (0, False, False, Outcome.WRITTEN),
        (6, False, False, Outcome.WRITTEN),
        (7, False, False, Outcome.DELETED),
        (8, False, False, Outcome.OVERTAKEN),
        (7, True, False, Outcome.REFUSED),
        (0, False, True, Outcome.ASIDE),
    ],
)
def test_what_a_batch_did(deleted_at: int, refused: bool, aside: bool, outcome: Outcome) -> None:
    assert outcome_of(7, deleted_at, refused=refused, aside=aside) is outcome


class Follow:
    """A mapping that no worker commits: what is in its log, and acknowledged, is this test's."""

    def __init__(self, stack: Stack, store: Store, follower: Follower) -> None:
        self.stack = stack
        self.store = store
        self._follower = follower

    async def news(self, acked: int) -> list[Committed | Skipped]:
        """What is told once this version is acknowledged."""
        token = Token("life", EntryId(int(time() * 1000), acked))
        await self.stack.redis_client.set(self._follower.names.acked, f"{acked} {token}")
        self._follower.announced(encode_commit("life", [token], {}))
        return [one async for news in self._follower.news() for one in news]

    async def log(self, version: int, *ids: str) -> None:
        """Log a batch."""
        await self.store.log.add(replace(logged(version, Token("life", EntryId(1, version))), ids=ids))


@pytest_asyncio.fixture(loop_scope="session")
async def follow(stack: Stack, new_id: str) -> AsyncIterator[Follow]:
    [mapping] = parse_mappings(f"x{new_id}=test.{new_id}:id")
    redis, mongo = connect(stack.redis_url, timeout=5), open_client(stack.mongo_uri, timeout=5)
    store = Store(mongo, mapping)
    yield Follow(stack, store, Follower(redis, store))
    await redis.aclose()
    close_client(mongo)


async def test_batches_are_told_once_they_are_acknowledged(follow: Follow) -> None:
    for version in (5, 6, 7):
        await follow.log(version, f"{version}a", f"{version}b")
    assert await follow.news(5) == [], "what was committed before it began"
    assert [(one.id, one.version) for one in await follow.news(6) if isinstance(one, Committed)] == [
        ("6a", 6),
        ("6b", 6),
    ]
    assert await follow.news(6) == []
    assert len(await follow.news(7)) == 2


async def test_what_the_log_has_forgotten_meanwhile_is_said_to_be_skipped(follow: Follow) -> None:
    await follow.log(5, "a")
    assert await follow.news(5) == []
    await follow.stack.mongo_client.test.sync_log.delete_many({"v": Int64(5), "ids": "a", "_id": {"$regex": "^x"}})
    await follow.log(9, "b")
    skipped, told = await follow.news(9)
    assert isinstance(skipped, Skipped)
    assert (skipped.above, skipped.upto) == (5, 8)
    assert isinstance(told, Committed)
    assert told.id == "b"
