"""Every window: processes killed between two steps, at each point that the code names, and what holds afterwards."""

import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from bson import Int64

from gears.contract.redis_names import Names
from gears.engines import Engine, open_engine
from tests.audit.test_audit import audit
from tests.loss.test_rewind import lose_everything_since, recovered
from tests.operate.test_embedded import Launcher
from tests.support.engines import KindStack, uncaptured
from tests.support.stack import Process, Stack, eventually, far_ahead

COMMITTING = (
    "lease taken",
    "states read",
    "tombstones written",
    "documents written",
    "log written",
    "dead letters kept",
    "refusals recorded",
    "fenced off",
    "rolled back",
    "ids given",
    "acknowledging",
    "acknowledged",
    "released",
)
REWINDING = ("life learnt", "given back", "checked")
REPAIRING = ("backfills queued", "one of them rolled back")
EXCHANGING = ("parked", "taken out")
"""Tested in `test_dependent.py`."""
MOVING_BACK = ("moved back",)
"""Tested in `test_refused_moves.py`."""
ANSWERING = ("written to Redis", "confirmed")
MAKING_ONCE = ("made by a key",)
"""Tested in `test_api_idempotency.py`."""
LISTENING = ("plain writes heard", "plain writes captured")
OTHERS = {
    *("fill put right", "recipe installed", "child started", "drift found", "absent keys deleted"),
    *("deleting a refused key", "missing documents captured"),
}
NAMES = Names("notes")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack for most of these tests; it runs whenever one begins."""
    async with a_stack(tmp_path_factory.mktemp("failpoints"), "redis-stack-7.4-gears2") as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_without_gears(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The same, on the engine `function`."""
    async with a_stack(tmp_path_factory.mktemp("function"), "redis-8.2-function") as stack:
        yield stack


@asynccontextmanager
async def a_stack(folder: Path, kind: str) -> AsyncIterator[Stack]:
    stack = KindStack(folder, kind, WT_LEASE_TTL="1", WT_MONGO_TIMEOUT="2", WT_COMMIT_TIMEOUT="20")
    try:
        await stack.start()
        await stack.mongo_client.test.notes.create_index(
            "slug", unique=True, partialFilterExpression={"slug": {"$exists": True}}
        )
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def running(shared: Stack) -> Stack:
    return await all_running(shared)


@pytest_asyncio.fixture(loop_scope="session")
async def without_gears(shared_without_gears: Stack) -> Stack:
    return await all_running(shared_without_gears)


async def all_running(stack: Stack) -> Stack:
    for process in stack.processes[::-1]:
        if not process.running:
            await process.start()
    return stack


async def engine_of(stack: Stack, prefix: str = "notes") -> Engine:
    mapping = next(mapping for mapping in stack.settings.mappings if mapping.prefix == prefix)
    return await open_engine(stack.redis_client, mapping)


def test_every_point_in_the_code_is_tested() -> None:
    root = Path(__file__).parents[2]
    code = "".join(
        file.read_text() for folder in ("gears", "worker", "service") for file in (root / folder).rglob("*.py")
    )
    points = re.findall(r'\breached\("([^"]+)"\)', code)
    assert sorted(points) == sorted(
        [
            *COMMITTING,
            *EXCHANGING,
            *MOVING_BACK,
            *REWINDING,
            *REPAIRING,
            *ANSWERING,
            *MAKING_ONCE,
            *LISTENING,
            *OTHERS,
        ]
    )


async def dies(process: Process, point: str) -> None:
    """Wait for the process to kill itself at this point."""
    await process.ends()
    assert process.exit_code == -signal.SIGKILL
    assert process.log.read_text().endswith(f"failpoint: {point}\n")


@asynccontextmanager
async def armed(process: Process, what: str) -> AsyncIterator[Process]:
    """Another such process, started, with these failpoints."""
    process = process.armed(FAILPOINTS=what)
    await process.start(wait=False)
    try:
        yield process
    finally:
        if process.running:
            process.thaw()
            await process.kill()


@dataclass(slots=True)
class Writers:
    """Requests that wait for their confirmation, whatever happens meanwhile."""

    stack: Stack
    name: str
    answers: dict[str, httpx.Response] = field(default_factory=dict)

    async def ask(self, method: str, what: str, document: dict[str, Any] | None = None) -> httpx.Response:
        path, headers = f"/notes/{self.name}-{what}", {"Prefer": "wait=60"}
        self.answers.pop(what, None)
        answer = await self.stack.client.request(method, path, json=document, headers=headers, timeout=60)
        self.answers[what] = answer
        return answer

    async def prepare(self) -> None:
        """What is acknowledged before."""
        for what in ("kept", "changed", "deleted"):
            assert (await self.ask("PUT", what, {"n": 0})).status_code == 201
        assert (await self.ask("PUT", "holder", {"slug": self.name})).status_code == 201

    async def write(self, tasks: Any) -> None:
        """Write, delete, and have refused by MongoDB and by the worker itself; returns when all that is captured."""
        tasks.start_soon(self.ask, "PUT", "changed", {"n": 1})
        tasks.start_soon(self.ask, "DELETE", "deleted")
        tasks.start_soon(self.ask, "PUT", "new", {"n": 1})
        tasks.start_soon(self.ask, "PUT", "refused", {"slug": self.name})
        kept, unnamed = f"notes:{self.name}-kept", f"notes:{self.name}-unnamed"
        await self.stack.redis_client.execute_command("JSON.SET", kept, "$", '{"_id":1}')
        await self.stack.redis_client.execute_command("JSON.SET", unnamed, "$", '{"n":1}')
        engine = await engine_of(self.stack)
        if not engine.captures_plain_clients:
            await self.stack.redis_client.set(NAMES.lease, "before")  # a worker's that listened until now
            events = [(key.encode(), "json.set") for key in (kept, unnamed)]
            await engine.observe(events, token="before", life=await engine.life())
            await self.stack.redis_client.delete(NAMES.lease)

        async def captured() -> bool:
            return int(await self.stack.redis_client.xlen(NAMES.stream)) == 6

        await eventually(captured)

    async def check(self) -> None:
        """Every answer is true of both sides, and each refusal was told and kept once."""
        expected_codes = {"kept": 201, "changed": 200, "deleted": 204, "holder": 201, "new": 201, "refused": 422}

        async def answered() -> bool:
            return self.answers.keys() == expected_codes.keys()

        await eventually(answered)
        assert {what: answer.status_code for what, answer in self.answers.items()} == expected_codes
        await self.both_sides_hold({"kept": 0, "changed": 1, "deleted": None, "new": 1, "refused": None, "unnamed": 1})
        assert (await self.stack.get(f"{self.name}-unnamed", "notes"))["id"] == f"{self.name}-unnamed"
        for what, letters in {"kept": 1, "refused": 1, "changed": 0}.items():
            found = self.stack.mongo_client.test.sync_dead_letters.count_documents({"key": f"notes:{self.name}-{what}"})
            assert await found == letters

    async def no_longer_stored(self, what: str) -> bool:
        return await self.stack.stored(f"{self.name}-{what}", "notes") is None

    async def both_sides_hold(self, expected: dict[str, int | None]) -> None:
        """These documents have these numbers."""
        await self.stack.drained("notes")
        for what, n in expected.items():
            document_id = f"{self.name}-{what}"
            stored, cached = await self.stack.stored(document_id, "notes"), await self.stack.get(document_id, "notes")
            assert (stored and stored["n"], cached and cached["n"]) == (n, n), what
            assert (await self.stack.client.get(f"/notes/{document_id}")).status_code == (404 if n is None else 200)


@pytest.mark.parametrize("point", COMMITTING)
async def test_a_committer_killed_between_two_steps_leaves_every_promise_kept(
    point: str, running: Stack, new_id: str
) -> None:
    await committing_survives(point, running, new_id)


@pytest.mark.parametrize("point", ["lease taken", "refusals recorded", "rolled back", "acknowledged"])
async def test_a_committer_killed_where_the_engine_has_a_part_does_so_without_gears_too(
    point: str, without_gears: Stack, new_id: str
) -> None:
    await committing_survives(point, without_gears, new_id)


async def committing_survives(point: str, stack: Stack, name: str) -> None:
    writers = Writers(stack, name)
    await writers.prepare()
    await stack.worker.stop()
    async with anyio.create_task_group() as tasks:
        await writers.write(tasks)
        async with armed(stack.worker, f"kill {point}") as worker:
            await dies(worker, point)
        await stack.worker.start(wait=False)
    await writers.check()


async def test_a_rewind_interrupted_at_every_step_is_completed(running: Stack, new_id: str) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    shutil.copytree(running.folder / "redis", running.folder / new_id)
    await writers.ask("PUT", "changed", {"n": 1})
    await writers.ask("DELETE", "deleted")
    await writers.ask("PUT", "new", {"n": 1})
    await running.worker.stop()
    await lose_everything_since(running, new_id)
    for point in REWINDING:
        async with armed(running.worker, f"kill {point}") as worker:
            await dies(worker, point)
    await running.set(f"{new_id}-kept", {"n": 2}, prefix="notes")
    await running.worker.start(wait=False)
    await recovered(running)
    await writers.both_sides_hold({"kept": 2, "changed": 1, "deleted": None, "new": 1})


async def test_a_repair_interrupted_at_every_step_is_completed_in_the_right_direction(
    running: Stack, new_id: str
) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.worker.stop()
    committer = running.only_committing()
    await committer.start()
    try:
        engine = await engine_of(running)
        for what in ("missing", "changed"):
            await uncaptured(engine, f"{new_id}-{what}", b'{"id":"%b-%b","n":5}' % (new_id.encode(), what.encode()))
        ahead = {"n": 6, "_sync.v": Int64(await far_ahead(running))}
        ids = [f"{new_id}-kept", f"{new_id}-deleted"]
        await running.mongo_client.test.notes.update_many({"id": {"$in": ids}}, {"$set": ahead})
        command = [sys.executable, "-m", "worker", "audit", "--repair", "--mapping", "notes"]
        for point in REPAIRING:
            ended = await anyio.run_process(command, env=running.env | {"FAILPOINTS": f"kill {point}"}, check=False)
            assert (ended.returncode, ended.stderr.decode()) == (-signal.SIGKILL, f"failpoint: {point}\n")
        code, [report], _ = await audit(running, "--repair", "--mapping", "notes")
        assert (code, report["left"]) == (0, 0)
        await writers.both_sides_hold({"missing": 5, "changed": 5, "kept": 6, "deleted": 6})
    finally:
        await committer.kill()


async def test_a_fill_that_was_being_put_right_is(running: Stack, new_id: str) -> None:
    await putting_right_survives(running, new_id)


async def test_a_fill_that_was_being_put_right_without_gears_is(without_gears: Stack, new_id: str) -> None:
    await putting_right_survives(without_gears, new_id)


async def putting_right_survives(stack: Stack, name: str) -> None:
    writers = Writers(stack, name)
    await writers.prepare()
    old = await stack.mongo_client.test.notes.find_one({"id": f"{name}-changed"})
    assert old is not None
    await writers.ask("PUT", "changed", {"n": 1})
    await stack.worker.stop()
    key = f"notes:{name}-changed"
    await expire(stack, key)
    engine = await engine_of(stack)
    ticket = await engine.ticket(f"{name}-changed")
    assert ticket
    filled = await engine.fill(f"{name}-changed", b'{"n":0}', version=old["_sync"]["v"], ticket=ticket)
    assert filled == b'{"n":0}'
    async with armed(stack.worker, "kill fill put right") as worker:
        await dies(worker, "fill put right")
    await stack.worker.start(wait=False)
    await writers.both_sides_hold({"changed": 1, "kept": 0})


async def test_what_a_document_is_renamed_to_is_not_deleted_for_what_was_refused_before(
    running: Stack, new_id: str
) -> None:
    await renamed_onto_a_refused_key(running, new_id)


async def test_what_a_document_is_renamed_to_is_not_deleted_without_gears(without_gears: Stack, new_id: str) -> None:
    await renamed_onto_a_refused_key(without_gears, new_id)


async def renamed_onto_a_refused_key(stack: Stack, new_id: str) -> None:
    """While the key is being deleted since MongoDB can't hold it: the rename is refused as well, and taken back."""
    too_long, document = f"{new_id}-{'x' * 1100}", {"id": new_id, "n": 1}
    await stack.set(new_id, document, "notes")
    await eventually(lambda: stack.stored(new_id, "notes"))
    await stack.worker.stop()
    async with armed(stack.worker, "freeze deleting a refused key") as worker:
        await worker.wait_ready()
        await stack.set(too_long, {}, "notes")
        await worker.reaches_failpoint()
        await stack.redis_client.rename(f"notes:{new_id}", f"notes:{too_long}")
        worker.thaw()

        async def is_back() -> bool:
            states = await stack.get(new_id, "notes"), await stack.stored(new_id, "notes")
            return states == (document, document) and not await stack.redis_client.exists(f"notes:{too_long}")

        await eventually(is_back, within=20)
        await stack.drained("notes")
        assert await is_back()


async def test_drift_found_by_a_reconciler_that_was_killed_then_is_repaired(running: Stack, new_id: str) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.worker.stop()
    engine, began = await engine_of(running), datetime.now(UTC)
    async with armed(running.worker, "kill drift found") as worker:
        await eventually(lambda: swept(running, "start", began))
        for what in ("changed", "new"):
            await uncaptured(engine, f"{new_id}-{what}", b'{"id":"%b-%b","n":1}' % (new_id.encode(), what.encode()))
        await dies(worker, "drift found")
    assert await writers.no_longer_stored("new")
    await running.worker.start()
    await eventually(lambda: running.stored(f"{new_id}-new", "notes"))
    await writers.both_sides_hold({"kept": 0, "changed": 1, "deleted": 0, "new": 1})


async def test_a_delete_captured_by_a_reconciler_that_was_killed_then_is_done_once(running: Stack, new_id: str) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.worker.stop()
    engine, began = await engine_of(running), datetime.now(UTC)
    committer = running.only_committing()
    await committer.start()
    try:
        async with armed(running.only_reconciling(), "kill absent keys deleted") as reconciler:
            await eventually(lambda: swept(running, "start", began))
            committer.freeze()
            await uncaptured(engine, f"{new_id}-deleted", None)
            await dies(reconciler, "absent keys deleted")
    finally:
        await committer.kill()
    assert await running.stored(f"{new_id}-deleted", "notes")
    assert await running.redis_client.xlen(NAMES.stream) == 1
    assert (await running.client.get(f"/notes/{new_id}-deleted")).status_code == 404
    await done_once(running, {"kept": 0, "changed": 0, "deleted": None}, writers)


async def done_once(stack: Stack, expected: dict[str, int | None], writers: Writers) -> None:
    """Whatever is captured is committed by the next worker, and its sweep captures nothing again."""
    captured, began = await entries_added(stack), datetime.now(UTC)
    await stack.worker.start()
    await eventually(lambda: swept(stack, "start", began))
    await writers.both_sides_hold(expected)
    assert await entries_added(stack) == captured


async def entries_added(stack: Stack) -> int:
    info = await stack.redis_client.xinfo_stream(NAMES.stream)
    return int(info["entries-added"])


async def test_a_deletion_of_cold_documents_that_was_killed_is_completed_by_the_next_audit(running: Stack) -> None:
    await running.worker.stop()
    committer = running.only_committing()
    await committer.start()
    try:
        engine, ids = await engine_of(running, "todos"), [f"{n:02}" for n in range(60)]
        for document_id in ids:
            await running.set(document_id, {"n": 1})
        await running.drained()
        for document_id in ids[:30]:
            await uncaptured(engine, document_id, None)
        command = [sys.executable, "-m", "worker", "audit", "--repair", "--mapping", "todos"]
        env = running.env | {"WT_COLD": "delete", "FAILPOINTS": "kill absent keys deleted"}
        ended = await anyio.run_process(command, env=env, check=False)
        assert (ended.returncode, ended.stderr.decode()) == (-signal.SIGKILL, "failpoint: absent keys deleted\n")
        await running.drained()
        assert await running.todos.distinct("id") == ids[20:]
        code, [report], _ = await audit(running, "--repair", "--mapping", "todos", WT_COLD="delete")
        assert (code, report["deleted"], report["warnings"]) == (0, 10, [])
        assert await running.todos.distinct("id") == ids[30:]
        buried = running.mongo_client.test.sync_tombstones.find({"mapping": "todos"})
        assert sorted([tombstone["_id"] async for tombstone in buried]) == [f"todos:{i}" for i in ids[:30]]
        answers = [(await running.client.get(f"/todos/{i}")).status_code for i in ids]
        assert answers == [404] * 30 + [200] * 30
    finally:
        await committer.kill()


@asynccontextmanager
async def listening(stack: Stack, what: str) -> AsyncIterator[Process]:
    """A worker, armed, that hears what plain clients write."""
    began = datetime.now(UTC)

    async def subscribed() -> bool:
        [(_, subscribers)] = await stack.redis_client.pubsub_numsub(NAMES.own)
        return bool(subscribers)

    await stack.worker.stop()
    async with armed(stack.worker, what) as worker:
        await eventually(lambda: swept(stack, "start", began))
        await eventually(subscribed)
        yield worker


async def test_what_a_worker_heard_and_was_killed_before_it_captured_it_is_found(
    without_gears: Stack, new_id: str
) -> None:
    writers = Writers(without_gears, new_id)
    await writers.prepare()
    async with listening(without_gears, "kill plain writes heard") as worker:
        for what in ("changed", "new"):
            await without_gears.set(f"{new_id}-{what}", {"n": 1}, prefix="notes")
        await dies(worker, "plain writes heard")
    assert await writers.no_longer_stored("new")
    await without_gears.worker.start()
    await eventually(lambda: without_gears.stored(f"{new_id}-new", "notes"))
    await writers.both_sides_hold({"kept": 0, "changed": 1, "deleted": 0, "new": 1})


async def test_what_a_worker_heard_before_it_was_frozen_is_not_taken_for_news_when_it_thaws(
    without_gears: Stack, new_id: str
) -> None:
    writers, key = Writers(without_gears, new_id), f"notes:{new_id}-deleted"
    await writers.prepare()
    async with listening(without_gears, "freeze plain writes heard") as late:
        await without_gears.redis_client.delete(key)
        await said(late, "failpoint: plain writes heard\n")
        await without_gears.worker.start()
        await writers.ask("PUT", "deleted", {"n": 2})
        await expire(without_gears, key)
        thawed = datetime.now(UTC)
        late.thaw()
        await eventually(lambda: swept(without_gears, "a committer lost its lease at work", thawed))
    assert await without_gears.stored(f"{new_id}-deleted", "notes") == {"id": f"{new_id}-deleted", "n": 2}
    await writers.both_sides_hold({"kept": 0, "changed": 0})


async def expire(stack: Stack, key: str) -> None:
    await stack.redis_client.pexpire(key, 1)

    async def expired() -> bool:
        return not await stack.redis_client.exists(key)

    await eventually(expired)


async def test_what_a_worker_captured_for_plain_clients_and_was_killed_then_is_committed_once(
    without_gears: Stack, new_id: str
) -> None:
    writers = Writers(without_gears, new_id)
    await writers.prepare()
    async with listening(without_gears, "kill plain writes captured") as worker:
        async with without_gears.redis_client.pipeline(transaction=True) as pipeline:
            for what in ("changed", "new"):
                document = f'{{"id":"{new_id}-{what}","n":1}}'
                pipeline.execute_command("JSON.SET", f"notes:{new_id}-{what}", "$", document)
            pipeline.delete(f"notes:{new_id}-deleted")
            await pipeline.execute()
        await dies(worker, "plain writes captured")
    assert (await without_gears.client.get(f"/notes/{new_id}-deleted")).status_code == 404
    await done_once(without_gears, {"kept": 0, "changed": 1, "deleted": None, "new": 1}, writers)


@pytest.mark.parametrize("point", ["tombstones written", "dead letters kept", "refusals recorded", "acknowledging"])
async def test_a_committer_frozen_between_two_steps_undoes_nothing_when_it_thaws(
    point: str, running: Stack, new_id: str
) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.worker.stop()
    async with anyio.create_task_group() as tasks:
        await writers.write(tasks)
        async with armed(running.worker, f"freeze {point}") as late:
            await said(late, f"failpoint: {point}\n")
            await running.worker.start()
            await running.drained("notes")
            await writers.check()
            await writers.ask("PUT", "changed", {"n": 2})
            await writers.ask("DELETE", "new")
            await writers.ask("PUT", "deleted", {"n": 2})
            await writers.ask("PUT", "refused", {"n": 2})
            thawed = datetime.now(UTC)
            late.thaw()
            await said(late, "committing stopped")
            expected = {"kept": 0, "changed": 2, "deleted": 2, "new": None, "refused": 2}
            await eventually(lambda: writers.no_longer_stored("new"))
            await writers.both_sides_hold(expected)
            await eventually(lambda: swept(running, "a committer lost its lease at work", thawed))


async def swept(stack: Stack, because: str, since: datetime) -> bool:
    """Whether a sweep for this reason followed."""
    asked = {"mapping": "notes", "because": because, "started_at": {"$gt": since}}
    return bool(await stack.mongo_client.test.sync_audits.count_documents(asked))


async def test_writes_missed_by_a_worker_killed_after_it_installed_the_recipe_are_found(
    running: Stack, new_id: str
) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.worker.stop()
    await running.redis_client.execute_command("TFUNCTION", "DELETE", "writethrough_notes")
    await running.set(f"{new_id}-kept", {"n": 1}, prefix="notes")
    async with armed(running.worker, "kill recipe installed") as worker:
        await dies(worker, "recipe installed")
    await running.worker.start()

    async def swept() -> bool:
        stored = await running.stored(f"{new_id}-kept", "notes")
        return stored is not None and stored["n"] == 1

    await eventually(swept)
    await writers.both_sides_hold({"kept": 1, "changed": 0})


@pytest.mark.parametrize("point", ANSWERING)
async def test_a_write_whose_answer_never_came_is_on_both_sides(point: str, running: Stack, new_id: str) -> None:
    writers = Writers(running, new_id)
    await writers.prepare()
    await running.api.stop()
    async with armed(running.api, f"kill {point}") as api:
        await api.wait_ready()
        with pytest.raises(httpx.TransportError):
            await writers.ask("PUT", "changed", {"n": 1})
        await dies(api, point)
    await running.api.start()
    await writers.both_sides_hold({"kept": 0, "changed": 1, "deleted": 0})


async def test_a_launcher_killed_while_it_starts_leaves_nothing_running(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    for children in range(1, 5):
        launcher.launch(FAILPOINTS=f"kill:{children} child started")
        assert await launcher.ended(within=20) == -signal.SIGKILL
        assert launcher.output.endswith("failpoint: child started\n")
        await eventually(launcher.nothing_is_left)
    await launcher.start()
    assert (await launcher.api("PUT", "/todos/1", json={"name": "x"})).status_code == 201
    assert await launcher.stop() == 0


async def said(process: Process, text: str) -> None:
    """Wait for the process to say this in its log."""

    async def probe() -> bool:
        return text in process.log.read_text()

    await eventually(probe, within=20)
