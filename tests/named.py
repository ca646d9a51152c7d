"""A MongoDB server that the user names, in the place of the embedded one: `make test MONGO=mongodb://host:port`.

Each stack has databases of its own there, dropped in the end. What a test does to the server is done to a proxy before
it: to freeze it, nothing passes; to stop or kill it, connections break.
"""

import os
import random
import string
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pymongo import AsyncMongoClient
from pymongo.uri_parser import parse_uri

from tests.wire import WireProxy

MONGO = os.environ.get("MONGO", "")
"""The server's URI; empty for the embedded one. Without TLS, user and password."""

_NAME = "test"
"""The database that tests use. On the server it has another name, as long as this one."""


class NamedMongo:
    """Does what a `Process` does.

    Args:
        port: where clients find it.
        folder: where its log, which stays empty, is.
    """

    name = "mongo"
    exit_code = 0

    def __init__(self, port: int, folder: Path) -> None:
        [(self._host, self._port), *_] = parse_uri(MONGO)["nodelist"]
        self._database = "".join(random.choices(string.ascii_lowercase, k=len(_NAME)))
        self._proxy = WireProxy(int(self._port), host=self._host, renamed=(_NAME, self._database))
        self._proxy.port = port
        self.running = False
        self.log = folder / "mongo.log"
        self.log.touch()

    @property
    def pid(self) -> NoReturn:
        """Skips the test: there is no process."""
        pytest.skip("this test needs the embedded server's process")

    def armed(self, **_: str) -> NoReturn:
        """Skips the test: there is no process."""
        pytest.skip("this test needs the embedded server's process")

    async def start(self, *, wait: bool = True, **_: str) -> None:
        """Let clients connect."""
        assert not self.running, "it runs already"
        await self._proxy.up()
        self.running = True
        if wait:
            await self.wait_ready()

    async def wait_ready(self, within: float = 30.0) -> None:
        """Return when the server answers."""
        async with self._client(timeoutMS=int(within * 1000)) as client:
            await client.admin.command("ping")

    async def stop(self, within: float = 10.0) -> float:
        """Break all connections, and take none; `within` is for processes."""
        self._proxy.thaw()
        self._proxy.down()
        self.running = False
        return min(0.0, within)

    async def kill(self) -> None:
        """The same."""
        await self.stop()

    def freeze(self) -> None:
        """Let nothing pass."""
        self._proxy.freeze()

    def thaw(self) -> None:
        """Let all pass."""
        self._proxy.thaw()

    async def drop(self) -> None:
        """Drop what the tests have left on the server."""
        async with self._client() as client:
            await client.drop_database(self._database)

    def _client(self, **options: Any) -> AsyncMongoClient[dict[str, Any]]:
        return AsyncMongoClient(MONGO, **options)
