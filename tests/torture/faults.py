"""The faults: what each does to the system, and how it is undone."""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from gears.in_redis.client import Redis
from gears.process.failpoint import VARIABLE
from gears.progress.backlog import last_entry
from tests.support.stack import Process, eventually
from tests.torture.answers import one_document, wrong_answers
from tests.torture.clients import Recorder
from tests.torture.history import Window
from tests.torture.http_client import HttpClient
from tests.torture.look import look
from tests.torture.plain_client import PlainClient
from tests.torture.schedule import DOCUMENT, KEYS, STANDBY, WIRE, Fault, Step
from tests.torture.system import NAMES, PREFIX, System
from tests.wire import Action, On

_MOST_LOST = 200_000
"""Most bytes that are cut off the append-only file: some seconds' worth."""


_MENDED_WITHIN = 20.0
"""Seconds in which a dropped index must be there again."""

_REACHED_WITHIN = 12.0
"""Seconds in which a worker must have started, taken the lead and come to where it is to stop."""

_TAKEOVER = 2.0
"""Seconds in which the standby takes over."""

_AHEAD_MS = 20_000
"""How far the stream is ahead of the clock when Redis loses it."""

_IN_STEP_WITHIN = 10.0
"""Seconds in which a replica must have what its primary has."""

_AT_WORK = 1.0
"""Seconds for which it is."""

_MOST_CRASHES = 5
_BUG_REPORT = b"=== REDIS BUG REPORT START"
"""How often Redis may crash while it starts."""

_LOOKS = {"between steps", "lose tail", "lose all", "lose future", "flush", "failover and back"}
"""Faults after which all keys are looked at."""


class Faults:
    """Does them.

    Args:
        system: what is hurt.
        recorder: the history.
    """

    def __init__(self, system: System, recorder: Recorder) -> None:
        self._system = system
        self._recorder = recorder
        self._locks = {name: anyio.Lock() for name in (*system.processes, *system.edges, WIRE, DOCUMENT)}
        self.lost: list[Window] = []
        """When Redis was away, or lost all, and why."""
        self.index_dropped: list[Window] = []
        """When nothing kept committers that overlap from storing a document twice."""
        self.recipe_removed: list[Window] = []
        self.done: dict[str, int] = {}

    async def do(self, fault: Fault) -> None:
        """Do one, for as long as it lasts, and undo it."""
        async with self._locks[fault.target]:
            try:
                async with self._hurt(fault):
                    await anyio.sleep(fault.seconds)
            except (RedisError, PyMongoError, OSError):
                return  # another fault was there before
            self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
            if fault.kind in _LOOKS:
                await look(self._system, self._recorder)

    async def heal(self) -> None:
        """Undo everything: all runs, everything passes."""
        for edge in self._system.edges.values():
            edge.heal()
        for name, process in self._system.processes.items():
            if process.running:
                process.thaw()
            else:
                await process.start(wait=name in ("redis", "mongo"))
        await self._system.processes["redis"].wait_ready()
        await self._system.redis.config_set("maxmemory", 0)

    @asynccontextmanager
    async def _hurt(self, fault: Fault) -> AsyncIterator[None]:
        match fault.kind:
            case "kill" | "restart" | "lose tail" | "lose all" | "lose future" | "clock back":
                hurting = self._down(fault)
            case "failover and back":
                hurting = self._failed_over()
            case "between steps":
                hurting = self._stopped(fault)
            case "freeze":
                hurting = self._frozen(self._system.processes[fault.target])
            case "cut" | "stall" | "deafen" | "slow":
                hurting = self._edge(fault)
            case "answers":
                hurting = self._answers(*wrong_answers(fault.amount))
            case "one document":
                hurting = self._answers(*one_document(fault.amount))
            case "out of memory":
                hurting = self._full()
            case "steal lease":
                hurting = self._stolen(fault)
            case _:
                hurting = self._mischief(fault)
        async with hurting:
            yield

    @asynccontextmanager
    async def _down(self, fault: Fault) -> AsyncIterator[None]:
        name = fault.target
        process = self._system.processes[name]
        if fault.kind == "lose future":
            await self._ahead(_AHEAD_MS)
            await anyio.sleep(_AT_WORK)
        gone = self._recorder.now()
        await (process.stop(30) if fault.kind == "restart" else process.kill())
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                if fault.kind == "lose tail":
                    self._system.truncate(min(fault.amount * 20, _MOST_LOST))
                elif fault.kind in ("lose all", "lose future"):
                    self._system.forget()
                elif fault.kind == "clock back":
                    process = self._system.processes["redis"] = self._system.redis_process(clock=-fault.amount)
                elif name == "redis":
                    process = self._system.processes["redis"] = self._system.redis_process()
                if name != "redis":
                    await process.start(wait=False)
                else:
                    await self._start_redis(process)
                    self.lost.append(Window(gone, self._recorder.now(), fault.kind))

    async def _start_redis(self, process: Process) -> None:
        """Start it, again if it crashes.

        RedisGears 1.2 does, when clients write while it loads a file in which a recipe was removed or replaced; with
        its memory in disorder, Redis may get stuck while it reports that.
        """
        for _ in range(_MOST_CRASHES):
            said = process.log.stat().st_size
            with suppress(AssertionError):
                return await process.start()
            stuck = process.running and _BUG_REPORT in process.log.read_bytes()[said:]
            if stuck:
                await process.kill()
            elif process.running or process.exit_code not in (-signal.SIGSEGV, -signal.SIGABRT):
                break
            self.done["crash"] = self.done.get("crash", 0) + 1
        raise AssertionError(f"Redis doesn't start: {process.log}")

    @asynccontextmanager
    async def _answers(self, chosen: On, action: Action) -> AsyncIterator[None]:
        """MongoDB answers some commands with errors that blame no document."""
        with self._system.wire.rule(chosen, action):
            yield

    @asynccontextmanager
    async def _frozen(self, process: Process) -> AsyncIterator[None]:
        process.freeze()
        try:
            yield
        finally:
            process.thaw()

    @asynccontextmanager
    async def _stopped(self, fault: Fault) -> AsyncIterator[None]:
        """A worker that leads and stops between two steps; the standby takes over meanwhile."""
        process = self._system.processes[fault.target]
        await process.kill()
        await process.start(wait=False, forked=True, **{VARIABLE: fault.moment})
        stopped = False
        try:
            async with self._locks[STANDBY], self._frozen(self._system.processes[STANDBY]):
                await self._write_all()
                with suppress(AssertionError):
                    stopped = await eventually(partial(_stands_still, process), within=_REACHED_WITHIN)
            if not stopped:
                raise TimeoutError(f"not reached: {fault.moment}")
            await anyio.sleep(_TAKEOVER)
            await self._delete_some()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                if stopped and process.running:
                    process.thaw()
                else:
                    if process.running:
                        await process.kill()
                    await process.start(wait=False)

    async def _write_all(self) -> None:
        """Write every key, so that the committer that will be stopped has many of them in its hands."""
        writes = (Step("JSON.SET", key, "", "") for key in KEYS)
        await PlainClient("plain-nemesis", self._system, self._recorder).run(writes, 0)

    async def _delete_some(self) -> None:
        """Delete keys that it has in its hands."""
        async with anyio.create_task_group() as tasks:
            for key in KEYS[::2]:
                client = HttpClient("http-nemesis", self._system, self._recorder, 0)
                tasks.start_soon(client.run, iter([Step("DELETE", key, "", "")]), 0)

    @asynccontextmanager
    async def _edge(self, fault: Fault) -> AsyncIterator[None]:
        edge = self._system.edges[fault.target]
        if fault.kind == "slow":
            edge.delay = min(fault.amount, 500) / 1000
        else:
            {"cut": edge.cut, "stall": edge.stall, "deafen": edge.deafen}[fault.kind]()
        try:
            yield
        finally:
            edge.heal()

    @asynccontextmanager
    async def _full(self) -> AsyncIterator[None]:
        redis = self._system.redis
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", max(1, used - 1024 * 1024))
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True), suppress(RedisError, OSError):
                await redis.config_set("maxmemory", 0)

    @asynccontextmanager
    async def _failed_over(self) -> AsyncIterator[None]:
        """A replica stops hearing of writes, is promoted, and the same process takes over again with what that had."""
        redis = self._system.redis
        process, replica = self._system.another_redis()
        await process.start()
        try:
            await replica.replicaof("127.0.0.1", str(self._system.setup.redis_port))
            await eventually(partial(_is_in_step, replica), within=_IN_STEP_WITHIN)
            await replica.replicaof("NO", "ONE")
            yield
            began = self._recorder.now()
            port = replica.connection_pool.connection_kwargs["port"]
            await redis.replicaof("127.0.0.1", str(port))
            try:
                with suppress(AssertionError):
                    await eventually(partial(_is_in_step, redis), within=_IN_STEP_WITHIN)
            finally:
                with anyio.CancelScope(shield=True):
                    await redis.replicaof("NO", "ONE")
                    self.lost.append(Window(began, self._recorder.now(), "failover and back"))
        finally:
            with anyio.CancelScope(shield=True):
                await replica.aclose()
                await process.kill()

    @asynccontextmanager
    async def _stolen(self, fault: Fault) -> AsyncIterator[None]:
        lease = NAMES.lease if fault.amount % 3 else NAMES.reconciler
        await self._system.redis.set(lease, "thief", px=200 + fault.amount % 2000)
        yield

    @asynccontextmanager
    async def _mischief(self, fault: Fault) -> AsyncIterator[None]:
        redis = self._system.redis
        began = self._recorder.now()
        match fault.kind:
            case "flush":
                await redis.flushall()
                self.lost.append(Window(began, self._recorder.now(), fault.kind))
            case "ahead":
                await self._ahead(fault.amount)
            case "drop lease":
                await redis.delete(NAMES.lease if fault.amount % 3 else NAMES.reconciler)
            case "remove recipe":
                await self._system.recipe_is_removed()
                self.recipe_removed.append(Window(began, self._recorder.now(), fault.kind))
            case "load recipe":
                await self._system.recipe_is_loaded_again()
            case "reload":
                await redis.execute_command("DEBUG", "RELOAD")
            case "drop index":
                await self._system.documents.drop_index("id_1")
                with suppress(AssertionError):
                    await eventually(self._is_unique, within=_MENDED_WITHIN, pause=0.1)
                self.index_dropped.append(Window(began, self._recorder.now(), fault.kind))
            case "expire":
                for key in KEYS[:: 1 + fault.amount % 5]:
                    await redis.pexpire(f"{PREFIX}:{key}", 1 + fault.amount % 50)
            case "sweep":
                await redis.set(NAMES.sweep, "asked for by the nemesis")
            case other:
                raise AssertionError(f"no such fault: {other}")
        yield

    async def _is_unique(self) -> bool:
        try:
            return "id_1" in await self._system.documents.index_information()
        except PyMongoError:
            return False

    async def _ahead(self, milliseconds: int) -> None:
        last = await last_entry(self._system.redis, NAMES)
        ms = max(int(time.time() * 1000), last.ms) + milliseconds
        await self._system.redis.xadd(NAMES.stream, {"e": "ahead"}, id=f"{ms}-0")


async def _is_in_step(redis: Redis) -> bool:
    """Whether a replica has all that its primary had when it asked."""
    info: Any = await redis.info("replication")
    return bool(info["role"] == "slave" and info["master_link_status"] == "up")


async def _stands_still(process: Process) -> bool:
    """Whether it is dead, or frozen: see proc_pid_stat(5)."""
    if not process.running:
        return True
    status = await anyio.Path(f"/proc/{process.pid}/stat").read_text()
    return status.rpartition(") ")[2].startswith("T")
