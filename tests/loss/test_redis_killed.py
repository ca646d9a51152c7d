"""Promises 2 and 3 while Redis is killed, twenty times under load, and comes back with less than it had."""

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from gears.in_redis.client import AWAY, RedisError
from tests.loss.test_rewind import in_mongodb, in_redis, recovered
from tests.support.stack import Stack, eventually

ROUNDS = 5
LOSSES = ("nothing", "tail", "older", "all")
CLIENTS = 6
KEYS = 3

State = int | None
"""The number that a document holds; None without one."""


@dataclass(slots=True)
class Key:
    """What the one client that writes to a key knows of it.

    Args:
        acknowledged: its state when a write or delete was last acknowledged.
        tried: what it may have become since.
    """

    acknowledged: State = None
    tried: list[State] = field(default_factory=list)


class Load:
    """Clients of the API, and a plain one, that set and delete keys of their own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.keys = {f"{client} {n}": Key() for client in range(CLIENTS) for n in range(KEYS)}
        self.acknowledged = {"PUT": 0, "DELETE": 0}
        self._n = 0
        self._stop = False

    async def run(self, until: Any) -> None:
        """Write until `until` returns."""
        self._stop = False
        async with anyio.create_task_group() as tasks:
            for client in range(CLIENTS):
                tasks.start_soon(self._write, client)
            tasks.start_soon(self._write_plainly)
            await until()
            self._stop = True

    async def more(self, writes: int, *, within: float = 30) -> None:
        """Wait until so many more are acknowledged, in so many seconds."""
        enough = sum(self.acknowledged.values()) + writes

        async def probe() -> bool:
            return sum(self.acknowledged.values()) >= enough

        await eventually(probe, within=within)

    async def _write(self, client: int) -> None:
        while not self._stop:
            self._n += 1
            document_id = f"{client} {self._n % KEYS}"
            key = self.keys[document_id]
            method, state = ("DELETE", None) if self._n % 4 == 0 else ("PUT", self._n)
            key.tried.append(state)
            body = None if state is None else {"n": state}
            answer = await self._stack.client.request(method, f"/notes/{document_id}", json=body)
            if answer.is_success:
                key.acknowledged, key.tried = state, []
                self.acknowledged[method] += 1
            else:
                assert answer.status_code in (404, 503, 504), answer.text

    async def _write_plainly(self) -> None:
        while not self._stop:
            self._n += 1
            document_id = f"plain {self._n % KEYS}"
            try:
                if self._n % 4:
                    await self._stack.set(document_id, {"id": document_id, "n": self._n}, prefix="notes")
                else:
                    await self._stack.redis_client.delete(f"notes:{document_id}")
            except (*AWAY, RedisError):
                await anyio.sleep(0.01)


async def lose(stack: Stack, what: str) -> None:
    """Kill Redis and have it start with less than it had."""
    aof = stack.folder / "redis" / "appendonlydir"
    older = stack.folder / "older"
    await stack.redis.kill()
    match what:
        case "tail":
            newest = max(aof.glob("*.incr.aof"), key=lambda file: int(file.name.split(".")[2]))
            os.truncate(newest, newest.stat().st_size * 3 // 4)
        case "older":
            shutil.rmtree(stack.folder / "redis")
            shutil.copytree(older, stack.folder / "redis")
        case "all":
            shutil.rmtree(aof)
    shutil.rmtree(older, ignore_errors=True)
    shutil.copytree(stack.folder / "redis", older)
    await stack.redis.start()


@pytest.mark.timeout(180)
async def test_redis_killed_twenty_times_under_load_loses_nothing_acknowledged(own_stack: Stack) -> None:
    await own_stack.start()
    load = Load(own_stack)
    rewinds = 0
    for what in LOSSES * ROUNDS:

        async def hurt(what: str = what) -> None:
            await load.more(30)
            await lose(own_stack, what)
            await load.more(20)

        await load.run(hurt)
        await recovered(own_stack)
        sides = await in_mongodb(own_stack), await in_redis(own_stack)
        assert sides[0] == sides[1]
        stored: dict[str, State] = {i: document["n"] for i, document in sides[0].items()}
        wrong = {
            i: (stored.get(i), key)
            for i, key in load.keys.items()
            if stored.get(i) not in (key.acknowledged, *key.tried)
        }
        assert wrong == {}, f"after it lost {what}"
        rewinds = own_stack.worker.log.read_text().count("gave Redis back what it had forgotten")
    assert rewinds >= ROUNDS, "nothing was lost, so nothing was tested"
    assert load.acknowledged["DELETE"] > 100
