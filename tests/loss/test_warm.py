"""Warming while clients write: what is committed after MongoDB was read isn't given back as it was read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import pytest_asyncio

from gears.contract.redis_names import Names
from tests.mongodb.test_mongo_answers import Proxied, proxied
from tests.support.stack import eventually
from tests.wire import Command, on

IDS = [str(n) for n in range(60)]


@pytest_asyncio.fixture(loop_scope="session")
async def system(tmp_path: Path) -> AsyncIterator[Proxied]:
    async for system in proxied(tmp_path):
        yield system


def is_last_read(command: Command) -> bool:
    """Whether it asks which of all documents are deleted, the last thing that warming asks MongoDB."""
    wanted = command.body.get("filter", {}).get("_id")
    return isinstance(wanted, dict) and {f"notes:{i}" for i in IDS} <= set(wanted.get("$in", ()))


@pytest.mark.parametrize("waits", [False, True], ids=["committed", "not yet committed"])
async def test_what_is_deleted_while_redis_is_warmed_does_not_come_back(system: Proxied, waits: bool) -> None:
    redis, read, go_on, done = system.stack.redis_client, anyio.Event(), anyio.Event(), anyio.Event()
    for document_id in IDS:
        await system.stack.set(document_id, {"n": 1}, "notes")
    await system.stack.drained("notes")

    async def answer_late(exchange: Any) -> None:
        reply = await exchange.forward()
        read.set()
        await go_on.wait()
        await exchange.answer(reply)

    async def do_late(exchange: Any) -> None:
        await done.wait()
        await exchange.answer(await exchange.forward())

    if waits:
        system.proxy.add(on("delete", "notes"), do_late)
    system.proxy.add(on("find", "sync_tombstones").where(is_last_read).next(), answer_late)
    await redis.flushall()
    with anyio.fail_after(20):
        await read.wait()
    await eventually(lambda: redis.exists(Names("notes").checked))  # a recheck may have asked the same before
    prefer = {"Prefer": "respond-async"} if waits else {"Prefer": "wait=4"}
    answers = [await system.client.delete(f"/notes/{i}", headers=prefer) for i in IDS[:3]]
    assert {answer.status_code for answer in answers} == {202 if waits else 204}, answers[0].text
    go_on.set()

    async def warm() -> bool:
        return "Redis is warm again" in system.stack.worker.log.read_text()

    await eventually(warm, within=20)
    assert await redis.exists(*(f"notes:{i}" for i in IDS[:3])) == 0
    assert await redis.exists(*(f"notes:{i}" for i in IDS[3:])) == len(IDS) - 3
    done.set()
    await system.stack.drained("notes", within=20)
    assert await system.stack.mongo_client.test.notes.count_documents({}) == len(IDS) - 3
