"""Cost as the work grows: large backlogs drained, one made of few keys, an audit of everything, starting."""

import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import anyio
from redis.asyncio import Redis

from service.embedded.children.child import Child
from tests.bench.stage import Stage, peak_memory
from tests.support.stack import Process, eventually

_AT_ONCE = 1000


async def measure(stage: Stage, entries: int) -> dict[str, float]:
    """Rates per second, seconds and MiB, by name."""
    found: dict[str, float] = {}
    for name, keys in (("entries of as many keys", entries), ("entries of 10 keys", 10)):
        found |= await _drain(stage, name, entries, keys)
    found |= await _audit(stage)
    await stage.stack.api.stop()
    started = perf_counter()
    await stage.stack.api.start()
    return found | {"seconds until the API is ready": round(perf_counter() - started, 2)}


async def _drain(stage: Stage, name: str, entries: int, keys: int) -> dict[str, float]:
    stack, redis = stage.stack, stage.stack.redis_client
    await stack.worker.stop()
    await _capture(redis, entries, keys)
    await stack.worker.start(wait=False)

    async def left() -> int:
        return int(await redis.xlen("sync:{todos}"))

    async def begun() -> bool:
        return await left() < entries

    await eventually(begun, within=60)
    started, waiting = perf_counter(), await left()
    await eventually(lambda: _none(left), within=3600, pause=0.05)
    rate = round(waiting / (perf_counter() - started))
    return {f"{name}, drained per second": rate, f"{name}, MiB of the worker": peak_memory(stack.worker)}


async def _capture(redis: Redis, entries: int, keys: int) -> None:
    """As a plain client writes."""
    for first in range(0, entries, _AT_ONCE):
        async with redis.pipeline(transaction=False) as pipeline:
            for n in range(first, min(first + _AT_ONCE, entries)):
                document = f'{{"id":"{n % keys}","name":"{n}","description":"{"x" * 140}"}}'
                pipeline.execute_command("JSON.SET", f"todos:{n % keys}", "$", document)
            await pipeline.execute()


async def _audit(stage: Stage) -> dict[str, float]:
    stack = stage.stack
    command = (sys.executable, "-m", "worker", "audit", "--json")
    audit = Process(Child(name="audit", command=command), stack.folder, stack.env)
    await audit.start(wait=False)
    memory = 0.0
    while audit.running:
        try:
            memory = max(memory, peak_memory(audit))
        except (OSError, IndexError):  # it has ended
            break
        await anyio.sleep(0.05)
    await eventually(lambda: _ended(audit))
    report: dict[str, Any] = json.loads(next(line for line in audit.log.read_text().splitlines() if "compared" in line))
    return {
        "documents audited": report["compared"],
        "documents audited per second": round(report["documents_per_second"]),
        "audit, MiB": memory,
    }


async def _none(left: Callable[[], Awaitable[int]]) -> bool:
    return not await left()


async def _ended(process: Process) -> bool:
    return not process.running
