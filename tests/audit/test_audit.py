"""The audit finds every difference, explains it, and repairs it in the right direction."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
from redis.asyncio import Redis

from gears.contract.mapping import Mapping
from gears.engines import Engine, open_engine
from gears.in_mongo.client import open_client
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.reports.kept_reports import KEPT_AUDITS
from gears.in_mongo.store import Store
from gears.in_redis.client import connect
from gears.progress.backlog import last_entry
from tests.support.engines import uncaptured
from tests.support.stack import Stack, eventually
from worker.lease.lease import Lease


async def audit(stack: Stack, *options: str, **env: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run `python -m worker audit --json`; its exit code, its reports and what it said on stderr."""
    command = [sys.executable, "-m", "worker", "audit", "--json", *options]
    ended = await anyio.run_process(command, env=stack.env | env, check=False)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr.decode()


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The kinds other than equal that were found."""
    return {kind: report[kind] for kind in ("missing", "stale", "ahead", "cold", "foreign") if report[kind]}


async def fill(stack: Stack, ids: list[str]) -> None:
    """Write these documents and wait until they are committed."""
    async with stack.redis_client.pipeline(transaction=False) as pipeline:
        for document_id in ids:
            pipeline.execute_command("JSON.SET", f"todos:{document_id}", "$", f'{{"name":"{document_id}","n":1}}')
        await pipeline.execute()
    await stack.drained()


@asynccontextmanager
async def committing(stack: Stack) -> AsyncIterator[Engine]:
    """Servers and a worker that only commits."""
    await stack.start(stack.redis, stack.mongo)
    worker = stack.only_committing()
    await worker.start()
    try:
        yield await open_engine(stack.redis_client, stack.settings.mappings[0])
    finally:
        await worker.kill()


@asynccontextmanager
async def a_writer(stack: Stack) -> AsyncIterator[None]:
    """A plain client that keeps setting and deleting keys of its own."""

    async def write() -> None:
        n = 0
        while True:
            n += 1
            await stack.set(f"busy-{n % 50}", {"n": n})
            if n % 5 == 0:
                await stack.redis_client.delete(f"todos:busy-{n * 3 % 50}")
            await anyio.sleep(0.002)  # so that the servers have time for the audit too

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        yield
        tasks.cancel_scope.cancel()


async def test_a_busy_key_is_never_taken_for_drift(own_stack: Stack) -> None:
    async with committing(own_stack):
        await fill(own_stack, ["busy-0"])
        async with a_writer(own_stack):
            code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos")
            assert (code, counts(report), report["repaired"]) == (0, {}, 0)


async def test_what_cannot_be_compared_exits_with_2_and_says_why(own_stack: Stack) -> None:
    code, reports, said = await audit(own_stack, "--mapping", "todos")
    assert (code, reports) == (2, [])
    assert "todos could not be compared" in said
    await own_stack.start(own_stack.redis)
    code, reports, said = await audit(own_stack)
    assert (code, reports) == (2, [])
    assert "notes could not be compared" in said
    code, _, said = await audit(own_stack, "--mapping", "nonsense")
    assert code == 2
    assert "todos, notes" in said
    code, _, said = await audit(own_stack, MAPPINGS="nonsense")
    assert code == 2
    assert "MAPPINGS" in said


async def test_drift_is_not_reported_while_commits_are_held_up(own_stack: Stack) -> None:
    async with committing(own_stack):
        await fill(own_stack, ["a", "b"])
    await own_stack.set("a", {"n": 2})
    code, reports, said = await audit(own_stack, "--mapping", "todos")
    assert (code, reports) == (2, [])
    assert "commits of 'todos' are held up, 1 entries wait" in said


async def test_an_emptied_redis_deletes_nothing_in_mongodb(own_stack: Stack) -> None:
    async with committing(own_stack):
        await fill(own_stack, [str(n) for n in range(100)])
    await own_stack.redis_client.flushall()
    code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos")
    # No committer has looked yet what Redis has forgotten.
    assert (code, counts(report), report["unsettled"]) == (0, {}, 100)
    assert await own_stack.todos.count_documents({}) == 100
    assert await own_stack.redis_client.dbsize() == 0


async def test_a_refused_document_is_reported_with_the_reason_and_not_retried(own_stack: Stack) -> None:
    async with committing(own_stack) as engine:
        await fill(own_stack, ["a"])
        await uncaptured(engine, "a", b'{"n":9223372036854775808}')
        code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos")
        assert (code, report["stale"], report["refused"], report["repaired"]) == (1, 1, 1, 0)
        assert "'n'" in report["examples"]["stale"][0]["reason"]
        assert await own_stack.get("a") == {"id": "a", "name": "a", "n": 1}, "rolled back"
        await uncaptured(engine, "a", b'{"n":9223372036854775808}')
        before = await last_entry(own_stack.redis_client, engine.names)
        code, [report], _ = await audit(own_stack, "--repair", "--mapping", "todos")
        assert (code, report["refused"], report["left"]) == (1, 1, 1)
        assert await last_entry(own_stack.redis_client, engine.names) == before, "it was tried again"


async def test_a_person_gets_a_table_with_examples(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    for document_id in ("a", "[/b]", "\x1b[2Jc"):
        await own_stack.set(document_id, {})
    command = [sys.executable, "-m", "worker", "audit"]
    ended = await anyio.run_process(command, env=own_stack.env | {"COLUMNS": "120"}, check=False)
    assert ended.returncode == 1, ended.stderr.decode()
    text = ended.stdout.decode()
    assert "todos: 3 keys differ" in text
    assert "notes: no drift left" in text
    assert all(key in text for key in ("todos:a", "todos:[/b]", r"todos:\x1b[2Jc"))
    assert "\x1b" not in text, "a key is no command to the terminal"


async def test_the_reports_are_listed_and_tell_since_when_drift_was_left(own_stack: Stack) -> None:
    async with committing(own_stack):
        await fill(own_stack, ["a"])
        for _ in range(2):
            await own_stack.todos.update_one({"id": "a"}, {"$set": {"n": 2}})
            await audit(own_stack, "--mapping", "todos")
            await audit(own_stack, "--mapping", "todos")
            await audit(own_stack, "--repair", "--mapping", "todos")
    code, reports, _ = await audit(own_stack, "--list", "--mapping", "todos")
    assert code == 0
    assert [(report["stale"], report["left"]) for report in reports] == [(1, 0), (1, 1), (1, 1)] * 2
    assert {report["because"] for report in reports} == {"the command"}
    started = [report["started_at"] for report in reports]
    assert started == sorted(started, reverse=True)
    since = [report["drift_since"] for report in reports]
    assert since == [None, started[2], started[2], None, started[5], started[5]]
    command = [sys.executable, "-m", "worker", "audit", "--list"]
    ended = await anyio.run_process(command, env=own_stack.env)
    assert ended.stdout.decode().splitlines()[:2] == [
        f"todos  {started[0][:19].replace('T', ' ')}  the command: no drift left; 1 compared in "
        f"{reports[0]['seconds']:.1f} s; stale 1, repaired 1",
        f"todos  {started[1][:19].replace('T', ' ')}  the command: 1 keys differ; 1 compared in "
        f"{reports[1]['seconds']:.1f} s; stale 1",
    ]


async def test_a_rate_limit_is_kept_to(own_stack: Stack) -> None:
    await own_stack.start(own_stack.redis, own_stack.mongo)
    await own_stack.todos.insert_many([{"id": str(n)} for n in range(10)] + [{"id": 5}, {"id": ["6"]}, {"name": "x"}])
    _, [report], _ = await audit(own_stack, "--mapping", "todos", WT_AUDIT_RATE="1000")
    assert report["seconds"] > 0.9, "one thousand SCAN steps count too"
    assert (report["cold"], report["legacy"]) == (10, 10)


async def test_the_latest_reports_are_kept(stack: Stack, new_id: str) -> None:
    client = open_client(stack.mongo_uri, timeout=5)
    store = Store(client, Mapping(new_id, "test", new_id))
    try:
        assert await store.reports.last_audit() is None
        for n in range(KEPT_AUDITS + 2):
            started_at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=n)
            await store.reports.keep_audit(AuditReport(mapping=new_id, started_at=started_at, compared=n))
        last = await store.reports.last_audit()
        assert last is not None
        assert last.compared == KEPT_AUDITS + 1
        assert await stack.mongo_client.test.sync_audits.count_documents({"mapping": new_id}) == KEPT_AUDITS
    finally:
        client.close()


async def test_what_an_audit_reads_does_not_count_as_used(stack: Stack, redis: Redis, new_id: str) -> None:
    await stack.set(new_id, {"id": new_id})

    async def unused() -> bool:
        return int(await redis.object("IDLETIME", f"todos:{new_id}")) >= 2

    await eventually(unused)
    await audit(stack, "--mapping", "todos")
    assert await unused()


async def test_a_lease_counts_as_used(stack: Stack, redis: Redis, new_id: str) -> None:
    lease, never = f"lease-{new_id}", f"never-{new_id}"

    async def idle(key: str) -> int:
        return int(await redis.object("IDLETIME", key))

    async def unused() -> bool:
        return await idle(never) >= 3

    async def work() -> None:
        await redis.set(never, "")
        await eventually(unused)
        assert await idle(lease) < await idle(never)

    async with connect(stack.redis_url, timeout=5, touching=False) as untouching:
        assert await Lease(untouching, lease, 4).hold(work)
