"""Fixtures: `stack` is shared by tests that hurt nobody; `own_stack` is a test's own, to be hurt."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.named import MONGO
from tests.stack import Stack

_OWN_SERVER = {"test_access.py", "test_secrets.py", "test_embedded.py", "test_readme.py", "test_torture.py"}
"""Tests that start a MongoDB server in a way of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what a MongoDB server that the user names has no part in."""
    if MONGO:
        reason = pytest.mark.skip(reason="MONGO names a server, and this test starts one in a way of its own")
        for item in items:
            if item.path.name in _OWN_SERVER:
                item.add_marker(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Redis, MongoDB and a worker, all running; the API joins them with the fixture `api`."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        await stack.start(stack.redis, stack.mongo, stack.worker)
        yield stack
    finally:
        await stack.close()


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
