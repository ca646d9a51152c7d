"""The MongoDB server of a stack: an embedded one, or when MONGO is set, the server that it names, for all stacks.

Before that one each stack has a relay in a process of its own, which is started, stopped, killed and frozen in the
server's stead. Each relay gives the databases names that no other has, and they are dropped in the end. So `MONGO` must
be the URI of a server, or of a replica set's primary, without TLS and access control.
"""

import asyncio
import os
import signal
import sys
from hashlib import sha256
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from service.embedded import server_commands as servers
from service.embedded.children.child import Child
from service.embedded.children.ready import mongo_ready
from service.embedded.ports_and_folder import Setup
from tests.wire import WireProxy

MONGO = os.environ.get("MONGO", "")

RUN = os.environ.setdefault("MONGO_RUN", uuid4().hex[:8])
"""What the names of this run's databases have in common, in all of its processes."""

_SHARED = frozenset({"admin", "config", "local"})


def needs_embedded() -> None:
    """Skip a test that gives the embedded server options of its own, when MONGO names another server."""
    if MONGO:
        pytest.skip("starts the embedded MongoDB server with options of its own, and MONGO names one that runs already")


def server(setup: Setup) -> Child:
    """What to run as MongoDB's server."""
    if not MONGO:
        return servers.mongo(setup)
    return Child(
        name="mongo",
        command=(sys.executable, "-m", "tests.support.mongo", str(setup.mongo_port), prefix(setup)),
        ready=mongo_ready(setup.mongo_uri),
    )


def prefix(setup: Setup) -> str:
    """What the names of a stack's databases begin with, on the server that MONGO names."""
    return f"wt_{RUN}_{sha256(str(setup.data).encode()).hexdigest()[:8]}_"


async def drop(prefix: str = f"wt_{RUN}_") -> None:
    """Drop the databases with such names, by default all of this run; without MONGO there are none."""
    if MONGO:
        async with AsyncMongoClient[dict[str, object]](MONGO, serverSelectionTimeoutMS=5000) as client:
            for name in await client.list_database_names():
                if name.startswith(prefix):
                    await client.drop_database(name)


async def find() -> tuple[str, int]:
    """Host and port of the server that MONGO names.

    Raises:
        pytest.UsageError: it can't be used.
    """
    try:
        parsed = parse_uri(MONGO)
        if parsed["username"] is not None or parsed["options"].get("tls"):
            raise pytest.UsageError("MONGO: the tests need a server without TLS and access control")
        async with AsyncMongoClient[dict[str, object]](MONGO, serverSelectionTimeoutMS=5000) as client:
            await client.admin.command("ping")
            address = await client.address
    except PyMongoError as error:
        raise pytest.UsageError(f"MONGO={MONGO}: {error}") from error
    assert address is not None
    return address[0], int(address[1])


async def relay(port: int, prefix: str) -> None:
    """Pass everything on, until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    def rename(database: str) -> str:
        return database if database in _SHARED or database.startswith(prefix) else prefix + database

    host, target = await find()
    async with WireProxy(target, host, port=port, rename=rename):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), sys.argv[2]))
