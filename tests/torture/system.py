"""The system under torture: Redis, a MongoDB server, two workers and two APIs, with a proxy on each edge between."""

import os
import shlex
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import httpx
from anyio import CancelScope
from bson import ObjectId
from pymongo import AsyncMongoClient

from gears.contract.redis_names import Names
from gears.in_redis.client import Redis, connect
from service.embedded import server_commands as servers
from service.embedded.children.child import CannotStart, Child
from service.embedded.ports_and_folder import LOOPBACK, Setup
from tests.support import mongo
from tests.support.engines import KINDS
from tests.support.stack import Process, free_port
from tests.torture.proxy import Edge
from tests.torture.schedule import EDGES, FAULTS
from tests.wire import WireProxy

PREFIX = "notes"
NAMES = Names(PREFIX)

GEARS1_SERVER = "GEARS1_SERVER"
"""Environment variable: the command line of a redis-server with RedisJSON and RedisGears 1.x, port and folder aside."""

_KINDS = {"gears2": "redis-stack-7.4-gears2", "function": "redis-8.2-function"}

_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""From Debian's package `faketime`."""

_SETTINGS = {
    "WT_LEASE_TTL": "1.5",
    "WT_MONGO_TIMEOUT": "2",
    "WT_REDIS_TIMEOUT": "1",
    "WT_COMMIT_TIMEOUT": "2",
    "WT_HOLD_TIMEOUT": "2",
    "WT_BATCH_SIZE": "50",
    "WT_AUDIT_INTERVAL": "20",
}
"""Deadlines short enough that much happens in a minute."""


class System:
    """All of it; `async with` opens the proxies, and kills what still runs in the end.

    Args:
        folder: where data and logs go.
        engine: `gears1`, `gears2` or `function`.
        typed: whether the ids are ObjectIds under `_id`, instead of strings under `id`.

    Raises:
        CannotStart: a server is missing.
    """

    def __init__(self, folder: Path, engine: str, *, typed: bool) -> None:
        self.typed = typed
        self.folder = folder
        self.engine = engine
        self.setup = Setup(host=LOOPBACK, port=free_port(), redis_port=free_port(), mongo_port=free_port(), data=folder)
        self.redis_folder.mkdir(parents=True)
        mapping = f"{PREFIX}=test.{PREFIX}:{'_id/oid' if typed else 'id'}"
        self.env = _SETTINGS | {"WT_ENGINE": engine, "MAPPINGS": mapping}
        self.redis = connect(self.setup.redis_url, timeout=3)
        self.mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            self.setup.mongo_uri, serverSelectionTimeoutMS=2000, timeoutMS=3000, retryReads=False
        )
        self.wire = WireProxy(self.setup.mongo_port)
        self.wire.port = free_port()
        self.edges = {name: Edge(name, self._port_of(name.partition(">")[2])) for name in EDGES}
        self.apis = {name: f"http://{LOOPBACK}:{free_port()}" for name in ("api-1", "api-2")}
        self.processes: dict[str, Process] = {}
        self._stack = AsyncExitStack()

    @property
    def redis_folder(self) -> Path:
        """Where Redis keeps its data."""
        return self.folder / "redis"

    @property
    def documents(self) -> Any:
        """The mapping's collection."""
        return self.mongo.test[PREFIX]

    async def stored(self, key: str | None = None) -> dict[str, dict[str, Any]]:
        """The documents in MongoDB by their ids, or the one with this id if it is there."""
        value = ObjectId(key) if self.typed else key
        query = {} if key is None else {self._id_field: value}
        return {str(found[self._id_field]): found async for found in self.documents.find(query)}

    def own_id(self, key: str) -> dict[str, Any]:
        """The field that holds a document's id, as JSON."""
        return {self._id_field: {"$oid": key} if self.typed else key}

    def id_in(self, document: dict[str, Any]) -> str:
        """The id of a document, from JSON."""
        return str(document["_id"]["$oid"] if self.typed else document["id"])

    @property
    def _id_field(self) -> str:
        return "_id" if self.typed else "id"

    @property
    def direct_env(self) -> dict[str, str]:
        """The environment of a process of ours that goes around the proxies."""
        return os.environ | self.env | {"REDIS_URL": self.setup.redis_url, "MONGO_URI": self.setup.mongo_uri}

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.wire)
        for edge in self.edges.values():
            await self._stack.enter_async_context(edge)
        self.processes = {"redis": self.redis_process(), "mongo": Process(mongo.server(self.setup), self.folder, {})}
        for name in ("worker-1", "worker-2"):
            self.processes[name] = self._ours(name, replace(servers.worker(self.setup), name=name))
        for name, url in self.apis.items():
            child = servers.api(replace(self.setup, port=httpx.URL(url).port or 0))
            self.processes[name] = self._ours(name, replace(child, name=name))
        return self

    async def __aexit__(self, *exc: object) -> None:
        with CancelScope(shield=True):
            for process in self.processes.values():
                if process.running:
                    process.thaw()
                    await process.kill()
            await self.redis.aclose()
            await self.mongo.close()
            await mongo.drop(mongo.prefix(self.setup))
        await self._stack.aclose()

    async def start(self) -> None:
        """Start everything, in order."""
        for name, process in self.processes.items():
            await process.start(wait=not name.startswith("worker"))

    def redis_process(self, *, clock: int = 0) -> Process:
        """Redis, not yet started.

        Args:
            clock: seconds to add to its clock.
        """
        fake = {"LD_PRELOAD": str(_FAKETIME), "FAKETIME": f"{clock}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return Process(_redis(self.setup, self.engine), self.folder, fake if clock else {}, ready=self._pings)

    def another_redis(self) -> tuple[Process, Redis]:
        """A server to be the replica of Redis, not yet started, and a client of it."""
        folder = Path(mkdtemp(prefix="replica-", dir=self.folder))
        (folder / "redis").mkdir()
        setup = replace(self.setup, redis_port=free_port(), data=folder)
        client = connect(setup.redis_url, timeout=3)

        async def pings() -> bool:
            return bool(await client.ping())

        return Process(_redis(setup, self.engine), folder, {}, ready=pings), client

    async def recipe_is_removed(self) -> None:
        """Take the recipe out, as by a person's mistake."""
        library = f"writethrough_{PREFIX}"
        if self.engine == "gears2":
            await self.redis.execute_command("TFUNCTION", "DELETE", library)
        elif self.engine == "function":
            await self.redis.execute_command("FUNCTION", "DELETE", library)
        else:
            for registration in await self.redis.execute_command("RG.DUMPREGISTRATIONS"):
                await self.redis.execute_command("RG.UNREGISTER", registration[1])

    async def recipe_is_loaded_again(self) -> None:
        """Replace the recipe by itself, as another deployment does."""
        if self.engine == "function":
            saved = await self.redis.execute_command("FUNCTION", "DUMP")
            await self.redis.execute_command("FUNCTION", "RESTORE", saved, "REPLACE")
            return
        library = f"writethrough_{PREFIX}"
        [found] = await self.redis.execute_command("TFUNCTION", "LIST", "LIBRARY", library, "WITHCODE", "vv")
        known = dict(zip(found[::2], found[1::2], strict=True))
        config = ("CONFIG", known[b"configuration"])
        await self.redis.execute_command("TFUNCTION", "LOAD", "REPLACE", *config, known[b"code"])

    def faults(self) -> list[str]:
        """The kinds of fault that can be done here."""
        without = [] if _FAKETIME.exists() else ["clock back"]
        without += ["drop index"] if self.typed else []  # there is none
        without += ["reload", "load recipe"] if self.engine == "gears1" else []  # RedisGears 1.2 crashes, has no such
        without += ["failover and back"] if self.engine != "function" else []  # RedisGears crashes in replicas
        return [kind for kind in FAULTS if kind not in without]

    def truncate(self, amount: int) -> None:
        """Cut so many bytes off the end of the append-only file."""
        files = [*self.redis_folder.glob("appendonlydir/*.incr.aof"), *self.redis_folder.glob("appendonly.aof")]
        if files:
            newest = max(files, key=lambda file: file.stat().st_mtime)
            os.truncate(newest, max(0, newest.stat().st_size - amount))

    def forget(self) -> None:
        """Delete all that Redis has on disk."""
        shutil.rmtree(self.redis_folder)
        self.redis_folder.mkdir()

    def _ours(self, name: str, child: Child) -> Process:
        env = self.env | {
            "REDIS_URL": f"redis://{LOOPBACK}:{self.edges[f'{name}>redis'].port}/0",
            "MONGO_URI": f"mongodb://{LOOPBACK}:{self.edges[f'{name}>mongo'].port}/?directConnection=true",
        }
        return Process(child, self.folder, env)

    def _port_of(self, server: str) -> int:
        return self.setup.redis_port if server == "redis" else self.wire.port

    async def _pings(self) -> bool:
        return bool(await self.redis.ping())


def _redis(setup: Setup, engine: str) -> Child:
    child = servers.redis(setup)
    if engine != "gears1":
        child = KINDS[_KINDS[engine]].child(child)
        return replace(child, command=(*child.command, "--enable-debug-command", "local"))
    if not os.environ.get(GEARS1_SERVER):
        raise CannotStart(
            f"RedisGears 1.x comes in no wheel: {GEARS1_SERVER} must be the command line of a server that has it, "
            'such as "redis-server --loadmodule rejson.so --loadmodule redisgears.so"'
        )
    arguments = child.command[1 : child.command.index("--loadmodule")]
    wanted = dict(zip(arguments[::2], arguments[1::2], strict=True)) | {"--loglevel": "notice"}
    del wanted["--set-proc-title"]  # Redis 6.2 knows it, 6.0 doesn't
    options = [word for pair in wanted.items() for word in pair]
    program, *modules = shlex.split(os.environ[GEARS1_SERVER])
    return replace(child, command=(program, *options, *modules), environment={})
