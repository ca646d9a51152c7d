"""Who takes part, and the servers under them."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
from pymongo import AsyncMongoClient
from pymongo.uri_parser import parse_uri

from service.embedded.children.child import Child
from tests.bench.load import Job, Result
from tests.support.stack import Process, Stack, free_port
from tests.torture.proxy import Edge

DATABASE = "writethrough_bench"

RIVALS = {
    "dual write": ("dual_write", "dual"),
    "cache-aside": ("cache_aside", "aside"),
    "rgsync-style": ("rgsync_style", "rgsync"),
    "bare": ("bare", "bare"),
}
"""Module and prefix of each."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """CPU milliseconds per answer.

    Args:
        own: of the contestant's own processes.
        everything: of all that ran on the machine: servers, clients, system, and whatever else there was.
    """

    own: float
    everything: float


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who can be asked to write or read.

    Args:
        name: what tables call it.
        prefix: resource and key prefix.
        port: where it listens.
        processes: what it is made of, beside the servers.
        protocol: see `Job`.
        headers: see `Job`.
    """

    name: str
    prefix: str
    port: int
    processes: Sequence[Process]
    protocol: str = "http"
    headers: tuple[tuple[str, str], ...] = ()

    async def under(self, job: Job) -> tuple[Result, Cpu]:
        """The result of this load, and the CPU time that it took."""
        job = job.model_copy(
            update={"protocol": self.protocol, "port": self.port, "prefix": self.prefix, "headers": dict(self.headers)}
        )
        before, all_before = sum(map(cpu_seconds, self.processes)), _busy_seconds()
        result = await run(job)
        own, everything = sum(map(cpu_seconds, self.processes)) - before, _busy_seconds() - all_before
        answers = max(1, sum(result.answers.values())) * (1.0 if job.fill else 1.1)  # the warm-up isn't counted
        return result, Cpu(round(own / answers * 1e3, 3), round(everything / answers * 1e3, 3))


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs.

    Args:
        stack: Redis and ours.
        contestants: by name.
        edge: between all of them and MongoDB; None where they talk to it directly.
    """

    stack: Stack
    contestants: dict[str, Contestant]
    edge: Edge | None


async def run(job: Job) -> Result:
    """Run this job in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.load"]
    done = await anyio.run_process(command, input=job.model_dump_json().encode(), stderr=None)
    return Result.model_validate_json(done.stdout)


def cpu_seconds(process: Process) -> float:
    """CPU time that it has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _busy_seconds() -> float:
    """CPU time that was not idle so far, of all cores; see proc_stat(5)."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return sum((user, nice, system, *others)) / _TICKS


def peak_memory(process: Process) -> float:
    """Most MiB that were ever resident."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


@asynccontextmanager
async def stage(folder: Path, mongo: str | None, *, delay: float | None = None) -> AsyncIterator[Stage]:
    """All contestants, running.

    Args:
        folder: for data and logs.
        mongo: URI of a MongoDB, of which one database is dropped; None for the embedded one.
        delay: seconds that MongoDB's answers take longer, by a proxy in this process; None for no proxy.
    """
    async with AsyncExitStack() as cleanup:
        mappings = f"todos={DATABASE}.todos:id"
        stack = Stack(folder, MAPPINGS=mappings)
        cleanup.push_async_callback(stack.close)
        uri = mongo or stack.mongo_uri
        await stack.start(stack.redis, *([] if mongo else [stack.mongo]))
        edge = None
        if delay is not None:
            edge = await cleanup.enter_async_context(Edge("mongo", parse_uri(uri)["nodelist"][0][1]))
            edge.delay = delay / 2  # each way
        reached = uri if edge is None else f"mongodb://127.0.0.1:{edge.port}/?directConnection=true"
        stack.env["MONGO_URI"] = reached
        stack.worker, stack.api = stack.another_worker("worker"), stack.another_api("api", stack.setup.port)
        async with AsyncMongoClient[dict[str, object]](uri) as client:
            await client.drop_database(DATABASE)
        contestants = [*(_rival(stack, name) for name in RIVALS), *_ours(stack)]
        rivals = [process for rival in contestants[: len(RIVALS)] for process in rival.processes]
        cleanup.push_async_callback(_kill, rivals)
        await stack.start(stack.worker, stack.api, *rivals)
        yield Stage(stack, {contestant.name: contestant for contestant in contestants}, edge)


def _ours(stack: Stack) -> list[Contestant]:
    api, redis = stack.setup.port, stack.setup.redis_port
    both = (stack.api, stack.worker)
    return [
        Contestant("writethrough", "todos", api, both),
        Contestant("respond-async", "todos", api, both, headers=(("Prefer", "respond-async"),)),
        Contestant("plain client", "todos", redis, (stack.worker,), protocol="redis"),
    ]


def _rival(stack: Stack, name: str) -> Contestant:
    module, prefix = RIVALS[name]
    port = free_port()
    options = ("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log")
    command = (sys.executable, "-m", "uvicorn", f"tests.bench.{module}:app", *options)
    child = Child(name=module, command=command, ready=partial(_listens, port))
    return Contestant(name, prefix, port, (Process(child, stack.folder, stack.env),))


async def _listens(port: int) -> bool:
    async with await anyio.connect_tcp("127.0.0.1", port):
        return True


async def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.running:
            await process.kill()
