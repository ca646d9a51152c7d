"""Fixtures: `stack` is shared by tests that hurt nobody; `own_stack` is a test's own, to be hurt."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.support import mongo
from tests.support.commands import Commands
from tests.support.stack import Stack


def pytest_configure(config: pytest.Config) -> None:
    """See that the server that MONGO names can be used."""
    if mongo.MONGO and not hasattr(config, "workerinput"):
        asyncio.run(mongo.find())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Drop there what a test that was broken off has left."""
    if not hasattr(session.config, "workerinput"):
        asyncio.run(mongo.drop())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The stack that many tests share."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        await stack.start(stack.redis, stack.mongo, stack.worker)
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(shared_stack: Stack) -> AsyncIterator[Stack]:
    """Redis, MongoDB and a worker, all running; the API joins them with the fixture `api`.

    The next file, which may be any other, finds no dead letters and no keys but documents.
    """
    yield shared_stack
    await shared_stack.tidy()


@pytest_asyncio.fixture(loop_scope="session")
async def own_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with nothing started yet, with deadlines and leases short enough for tests."""
    stack = Stack(
        tmp_path_factory.mktemp("own"),
        WT_LEASE_TTL="1.5",
        WT_MONGO_TIMEOUT="2",
        WT_REDIS_TIMEOUT="2",
        WT_COMMIT_TIMEOUT="2",
    )
    try:
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def api(stack: Stack) -> httpx.AsyncClient:
    """A client of the shared stack's API."""
    if not stack.api.running:
        await stack.api.start()
    return stack.client


@pytest.fixture
def redis(stack: Stack) -> Redis:
    """A plain client of the shared stack's Redis, of the test's own: `json()` changes how it reads replies for good."""
    return Redis(connection_pool=stack.redis_client.connection_pool)


@pytest.fixture
def new_id() -> str:
    """An id nobody else uses."""
    return uuid4().hex


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Runs `writethrough`."""
    commands = Commands()
    yield commands
    commands.close()
