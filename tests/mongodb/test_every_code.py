"""Codes of MongoDB's list for whole commands of each kind, at the top and as a write concern error.

Each code goes through the life of a document in one of many mappings, which run side by side: the document is created,
replaced, deleted and created anew, and on the way each command fails once. Nothing of that is a refusal.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio

from tests.support.codes import SAMPLE
from tests.support.stack import Stack
from tests.wire import Command, WireProxy, on, top_error, write_concern_error
from tests.wire.actions import Action, Exchange

_LANES = 24
_ABOUT_INDEXES = frozenset({68, 85, 86, 11000})
"""Codes that say of an index what is in its way: test_existing_collections has these."""


def _top(code: int) -> Action:
    """With and without a label, before and after the server has done what was asked."""
    return top_error(code, labels=["RetryableWriteError"] if code % 2 else [], applied=code % 3 == 0)


Step = tuple[str, str]
"""A command's name and its collection's."""

CREATE: list[Step] = [("update", "notes"), ("insert", "sync_log")]
REPLACE: list[Step] = [("update", "notes"), ("createIndexes", "notes"), ("listIndexes", "notes")]
DELETE: list[Step] = [("update", "sync_tombstones"), ("delete", "notes")]
ANEW: list[Step] = [("find", "sync_tombstones")]

LEVELS: dict[str, Callable[[int], Action]] = {"top": _top, "write concern": write_concern_error}


class _Lanes:
    """Mappings side by side, and what fails next in each of them."""

    def __init__(self, stack: Stack, proxy: WireProxy) -> None:
        self.stack, self.proxy = stack, proxy
        self._armed: defaultdict[str, dict[Step, Action]] = defaultdict(dict)
        proxy.add(
            on(("insert", "update", "delete", "find", "createIndexes", "listIndexes")).where(self._is_armed), self._act
        )

    async def through(self, lane: int, codes: Sequence[int], level: str) -> None:
        """One code after the other."""
        action = LEVELS[level]
        for code in codes:
            document_id = f"{list(LEVELS).index(level)}-{code}"
            reads = level != "write concern"
            indexes = [] if code in _ABOUT_INDEXES else REPLACE[1:]
            create = await self._put(lane, document_id, 1, CREATE, action(code))
            replace = await self._put(lane, document_id, 2, [REPLACE[0], *(indexes if reads else [])], action(code))
            delete = await self._failing(lane, "DELETE", document_id, None, DELETE, action(code))
            anew = await self._put(lane, document_id, 3, ANEW if reads else CREATE, action(code))
            assert [create, replace, delete, anew] == [201, 200, 204, 201], code
            stored = await self.stack.mongo_client[f"codes{lane}"].notes.find_one({"id": document_id}, {"_id": 0})
            assert (stored or {}).pop("_sync", None), code
            assert stored == {"id": document_id, "n": 3}, code

    async def dead_letters(self) -> int:
        """How many there are in all."""
        databases = [self.stack.mongo_client[f"codes{lane}"] for lane in range(_LANES)]
        return sum([await database.sync_dead_letters.count_documents({}) for database in databases])

    async def _put(self, lane: int, document_id: str, n: int, steps: Sequence[Step], action: Action) -> int:
        return await self._failing(lane, "PUT", document_id, {"n": n}, steps, action)

    async def _failing(
        self, lane: int, method: str, document_id: str, body: Any, steps: Sequence[Step], action: Action
    ) -> int:
        armed = self._armed[f"codes{lane}"]
        armed.update(dict.fromkeys(steps, action))
        url = f"/m{lane}/{document_id}"
        answer = await self.stack.client.request(method, url, json=body, headers={"Prefer": "wait=30"})
        assert steps[0] not in armed, (document_id, method)
        armed.clear()  # what a second try would have asked for, where the first code left nothing to be tried again
        return answer.status_code

    def _is_armed(self, command: Command) -> bool:
        return (command.name, command.collection) in self._armed.get(command.database, ())

    async def _act(self, exchange: Exchange) -> None:
        command = exchange.command
        await self._armed[command.database].pop((command.name, command.collection))(exchange)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lanes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Lanes]:
    folder: Path = tmp_path_factory.mktemp("codes")
    mappings = ",".join(f"m{lane}=codes{lane}.notes:id" for lane in range(_LANES))
    stack = Stack(folder, MAPPINGS=mappings)
    stack.client = httpx.AsyncClient(base_url=stack.setup.api_url, timeout=60)
    try:
        await stack.start(stack.mongo, stack.redis)
        async with WireProxy(stack.setup.mongo_port) as proxy:
            stack.worker = stack.another_worker("proxied-worker", MONGO_URI=proxy.uri)
            await stack.start(stack.worker, stack.api)
            yield _Lanes(stack, proxy)
    finally:
        await stack.close()


@pytest.mark.parametrize("level", LEVELS)
async def test_an_error_of_a_whole_command_refuses_nothing(lanes: _Lanes, level: str) -> None:
    codes = SAMPLE[list(LEVELS).index(level) :: len(LEVELS)]
    async with anyio.create_task_group() as tasks:
        for lane in range(_LANES):
            tasks.start_soon(lanes.through, lane, codes[lane::_LANES], level)
    assert await lanes.dead_letters() == 0
    assert "crashed" not in lanes.stack.worker.log.read_text()
