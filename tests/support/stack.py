"""Real processes under test: Redis, a MongoDB-protocol server, workers and the API, each of which can be hurt."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import anyio
import httpx
from pydantic_core import to_json
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import encode
from gears.contract.version import version_of
from gears.contract.write_tokens import NOTHING, Token
from gears.in_mongo.log.batches import Logged
from gears.process.settings import Settings
from gears.progress.backlog import read_backlog
from gears.progress.reconciler_state import read_reconciler
from service.embedded import server_commands as servers
from service.embedded.children import die_with_parent
from service.embedded.children.child import Child
from service.embedded.ports_and_folder import LOOPBACK, Setup
from tests.support import mongo
from tests.support.forks import Forked, can_fork, forks

MAPPINGS = "todos=test.todos:id,notes=test.notes:id"

Probe = Callable[[], Awaitable[object]]


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def encoded(mapping: Mapping, document_id: str, document: object, version: int) -> bytes:
    """What MongoDB is to hold of a document."""
    return encode(mapping, document_id, to_json(document), version).raw


def logged(version: int, entry: Token = NOTHING) -> Logged:
    """A batch of this version for the log, up to an entry."""
    return Logged(version, entry, entry)


async def newest_version(stack: "Stack", prefix: str = "notes") -> int:
    """The version of the newest batch."""
    [found] = (
        await stack.mongo_client.test.sync_log.find({"_id": {"$gt": f"{prefix} ", "$lt": f"{prefix} g"}})
        .sort("_id", -1)
        .to_list(1)
    )
    return int(found["v"])


async def far_ahead(stack: "Stack", prefix: str = "notes") -> int:
    """A version above all that were given."""
    found = await stack.mongo_client.test.sync_log.find_one({"_id": prefix})
    assert found is not None
    return version_of(int(found["term"]) + 1000, 1)


async def eventually(probe: Callable[[], Awaitable[Any]], *, within: float = 30.0, pause: float = 0.01) -> Any:
    """The first true result of `probe`, asked again and again.

    Raises:
        AssertionError: there was none within so many seconds.
    """
    deadline = monotonic() + within
    while True:
        result = await probe()
        if result:
            return result
        assert monotonic() < deadline, f"not within {within} s; last result: {result!r}"
        await anyio.sleep(pause)


class Process:
    """One process.

    Args:
        child: how the launcher would start it.
        folder: where its output goes.
        env: environment variables beside the launcher's.
        ready: raises, or returns something false, until it can be used; the launcher's own probe by default.
    """

    def __init__(self, child: Child, folder: Path, env: dict[str, str], ready: Probe | None = None) -> None:
        self.name = child.name
        self.log = folder / f"{child.name}.log"
        self._command = child.command
        self._env = dict(child.environment) | env
        self._ready = ready or child.ready
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with, as `subprocess` has it: negative for a signal."""
        assert self._process is not None
        return self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *, wait: bool = True, forked: bool = True, **env: str) -> None:
        """Start it, this time with more in its environment, and wait until it is ready.

        Args:
            wait: whether to wait.
            forked: whether it may be forked where it can be, instead of being run.
            env: more environment variables.
        """
        assert not self.running, f"{self.name} runs already"
        env = {**os.environ, **self._env, **env}
        self.log.touch()
        if forked and can_fork(self._command):
            self._process = forks().fork(self._command, env, self.log)
        else:
            command = [sys.executable, "-S", die_with_parent.__file__, str(os.getpid()), *self._command]
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220 it returns at once
                    command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
        if wait:
            await self.wait_ready()

    def armed(self, **env: str) -> "Process":
        """Another process like this one, with more in its environment and a log of its own."""
        process = copy(self)
        process.log = self.log.with_name(f"{self.name}-{len(list(self.log.parent.iterdir()))}.log")
        process._env, process._process = self._env | env, None
        return process

    async def wait_ready(self, within: float = 60.0) -> None:
        deadline = monotonic() + within
        while True:
            try:
                if await self._ready():
                    return
            except (OSError, RedisError, PyMongoError) as error:
                last: object = error
            else:
                last = "not ready"
            assert self.running, f"{self.name} ended while starting:\n{self.log.read_text()[-3000:]}"
            assert monotonic() < deadline, f"{self.name} is not ready: {last!r}\n{self.log.read_text()[-3000:]}"
            await anyio.sleep(0.02)

    async def stop(self, within: float = 10.0) -> float:
        """SIGTERM; return how many seconds it took to end."""
        started = monotonic()
        self._signal(signal.SIGTERM)
        await eventually(self._ended, within=within)
        return monotonic() - started

    async def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        await eventually(self._ended)

    async def ends(self, within: float = 60.0) -> None:
        """Wait until it has ended by itself."""
        await eventually(self._ended, within=within)

    async def reaches_failpoint(self) -> None:
        """Wait until it has frozen or killed itself at one."""

        async def reached() -> bool:
            return b"failpoint: " in self.log.read_bytes()

        await eventually(reached, within=20)

    def freeze(self) -> None:
        """SIGSTOP; returns when it has stopped."""
        self._signal(signal.SIGSTOP)
        stat, deadline = Path(f"/proc/{self.pid}/stat"), monotonic() + 5
        with suppress(OSError):  # it has ended
            while stat.read_text().rpartition(")")[2].split()[0] != "T" and monotonic() < deadline:
                sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def _ended(self) -> bool:
        return not self.running

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Stack:
    """A whole system on free ports.

    Args:
        folder: where its data and logs go.
        redis_port: the port of Redis; a free one by default.
        env: settings beside the usual ones.
    """

    def __init__(self, folder: Path, *, redis_port: int | None = None, **env: str) -> None:
        self.folder = folder
        self.setup = Setup(
            host=LOOPBACK,
            port=free_port(),
            redis_port=redis_port or free_port(),
            mongo_port=free_port(),
            data=folder,
        )
        (folder / "redis").mkdir(parents=True, exist_ok=True)
        self.redis_url, self.mongo_uri = self.setup.redis_url, self.setup.mongo_uri
        self.env = {"REDIS_URL": self.redis_url, "MONGO_URI": self.mongo_uri, "MAPPINGS": MAPPINGS} | env
        self.settings = Settings.model_validate(self.env)
        self.redis_client: Redis = Redis.from_url(self.redis_url, socket_timeout=5, protocol=2)
        self.mongo_client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self.mongo_uri,
            serverSelectionTimeoutMS=2000,
            timeoutMS=10_000,
            maxIdleTimeMS=60_000,  # the server hangs up after five minutes, which this driver notices too late
        )
        self.client = httpx.AsyncClient(base_url=self.setup.api_url, timeout=30)
        self.redis = Process(servers.redis(self.setup), folder, {})
        self.mongo = Process(mongo.server(self.setup), folder, {})
        self.worker = self.another_worker("worker")
        self.api = self.another_api("api", self.setup.port)

    def another_worker(self, name: str, **env: str) -> Process:
        """One more worker on the same servers."""
        return Process(replace(servers.worker(self.setup), name=name), self.folder, self.env | env, self._worker_ready)

    def another_api(self, name: str, port: int, **env: str) -> Process:
        """One more API on the same servers."""
        return Process(replace(servers.api(replace(self.setup, port=port)), name=name), self.folder, self.env | env)

    def only_committing(self, name: str = "committer") -> Process:
        """A worker that leaves drift alone."""
        return Process(self._with_verb("commit", name), self.folder, self.env, self._worker_ready)

    def only_reconciling(self, name: str = "reconciler") -> Process:
        """A worker that commits nothing."""
        return Process(self._with_verb("reconcile", name), self.folder, self.env, self._reconciler_ready)

    @property
    def todos(self) -> Any:
        """The collection of the mapping `todos`."""
        return self.mongo_client.test.todos

    @property
    def processes(self) -> list[Process]:
        return [self.api, self.worker, self.mongo, self.redis]

    async def start(self, *processes: Process) -> None:
        """Start these, or all."""
        for process in processes or self.processes[::-1]:
            await process.start()

    async def stored(self, document_id: str, collection: str = "todos") -> dict[str, Any] | None:
        """What MongoDB holds under this id, without `_id` and `_sync`."""
        found = await self.mongo_client.test[collection].find_one({"id": document_id})
        return None if found is None else {k: v for k, v in found.items() if k not in ("_id", "_sync")}

    async def set(self, document_id: str, document: Any, prefix: str = "todos") -> None:
        """A plain client's JSON.SET."""
        await self.redis_client.json().set(f"{prefix}:{document_id}", "$", document)

    async def get(self, document_id: str, prefix: str = "todos") -> Any:
        """A plain client's JSON.GET."""
        return await self.redis_client.json().get(f"{prefix}:{document_id}")

    async def drained(self, prefix: str = "todos", within: float = 60.0) -> None:
        """Wait until nothing is left to commit."""

        async def probe() -> bool:
            return int(await self.redis_client.xlen(f"sync:{{{prefix}}}")) == 0

        await eventually(probe, within=within)

    async def tidy(self) -> None:
        """Take away dead letters, and what is under the keys of documents and isn't one."""

        async def dropped() -> bool:
            with suppress(AutoReconnect):  # the driver's monitor, on a busy machine
                await self.mongo_client.test.sync_dead_letters.delete_many({})
                return True
            return False

        await eventually(dropped)
        async for key in self.redis_client.scan_iter(count=1000):
            if not key.startswith(b"sync:") and await self.redis_client.type(key) != b"ReJSON-RL":
                await self.redis_client.unlink(key)

    async def close(self) -> None:
        """Kill what still runs."""
        await self.client.aclose()
        await self.redis_client.aclose()
        await self.mongo_client.close()
        for process in self.processes:
            if process.running:
                process.thaw()
                await process.kill()
        await mongo.drop(mongo.prefix(self.setup))

    def _with_verb(self, verb: str, name: str) -> Child:
        child = servers.worker(self.setup)
        return replace(child, name=name, command=(*child.command, verb))

    async def _reconciler_ready(self) -> bool:
        return all([await read_reconciler(self.redis_client, mapping) for mapping in self.settings.mappings])

    async def _worker_ready(self) -> bool:
        for mapping in self.settings.mappings:
            worker = (await read_backlog(self.redis_client, mapping)).worker
            if worker is None or worker.state != "committing":
                return False
        return True
