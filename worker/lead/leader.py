"""One mapping's place in a worker: wait for the lease, commit and look after the recipe, begin again after errors."""

from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup
from motor.motor_asyncio import AsyncIOMotorClient
from redis.exceptions import RedisError

from gears.cli.exception_groups import leaves, reasons
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.engines import Engine, open_engine
from gears.errors import (
    CaptureMissing,
    ConfigError,
    LeaseLost,
    MongoWasPutBack,
    OutcomeUnknown,
    RedisAway,
    RedisRefused,
    Rewound,
    Unfit,
)
from gears.in_mongo.client import Document, MongoError
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis, own_wire, server_run
from gears.process.failpoint import reached
from gears.process.settings import Settings
from gears.progress.backlog import read_backlog
from worker.audit.reconciler import request_sweep
from worker.commit.begin_term import begin
from worker.commit.committer import Committer
from worker.commit.term import Term
from worker.lead.keep_recipe import supervise
from worker.lead.plain_writes import Listener
from worker.lead.prepare_mongo import prepare, tidy
from worker.lead.warm import Warm
from worker.lead.watch_mongo import LOOK_EVERY, MongoWatch
from worker.lease.lease import Lease, process_name
from worker.progress import Progress
from worker.reporter import Reporter

_STANDBY_POLL = 0.5

_RESTART = (
    LeaseLost,
    MongoWasPutBack,
    Rewound,
    RedisAway,
    OutcomeUnknown,
    CaptureMissing,
    ConfigError,
    Unfit,
    RedisError,
    *AWAY,
)


class Leader:
    """Takes part in committing one mapping."""

    def __init__(
        self, redis: Redis, mongo: "AsyncIOMotorClient[Document]", mapping: Mapping, settings: Settings
    ) -> None:
        self._redis = redis
        self._mapping = mapping
        self._settings = settings
        self._store = Store(mongo, mapping)
        self._owner = process_name()
        self._log = structlog.get_logger().bind(mapping=mapping.prefix)
        self._warned: set[str] = set()
        self._put_back = False
        self._standing_by = False

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled."""
        async with anyio.create_task_group() as tasks:
            await self._run(tasks)

    async def _run(self, tasks: TaskGroup) -> None:
        failed = ""
        lease = Lease(self._redis, Names(self._mapping.prefix).lease, self._settings.lease_ttl)
        while True:
            try:
                led = await lease.hold(partial(self._lead, lease))
                failed = ""
                await self._stand_by(led)
            except* _RESTART as errors:
                reason = reasons(errors)
                if reason != failed:
                    self._log.error("committing stopped; trying again", reason=reason)
                failed = reason
                self._put_back |= any(isinstance(error, MongoWasPutBack) for error in leaves(errors))
                if any(isinstance(error, LeaseLost) for error in leaves(errors)):
                    tasks.start_soon(self._sweep_up)
            except* Exception as errors:  # noqa: BLE001 whatever it is, the other mappings go on
                reason = "; ".join(sorted({repr(error) for error in leaves(errors)}))
                if reason != failed:
                    self._log.error("committing crashed; trying again", reason=reason[:500], exc_info=errors)
                failed = reason
            await anyio.sleep(_STANDBY_POLL)

    async def _stand_by(self, led: bool) -> None:
        """Say once that another committer is at work, and which."""
        if not led and not self._standing_by:
            worker = (await read_backlog(self._redis, self._mapping)).worker
            self._log.info("standing by: another committer is at work", committer=worker.owner if worker else None)
        self._standing_by = not led

    async def _sweep_up(self) -> None:
        """Have swept what arrives in MongoDB after another committer took over, such as a document deleted since."""
        names = Names(self._mapping.prefix)
        await anyio.sleep(self._settings.mongo_timeout)  # the deadline of what was under way
        while True:
            try:
                return await request_sweep(self._redis, names, "a committer lost its lease at work")
            except (*AWAY, RedisError):
                await anyio.sleep(_STANDBY_POLL)

    async def _lead(self, lease: Lease) -> None:
        self._standing_by = False
        reporter = Reporter(self._redis, self._mapping, self._owner, await server_run(self._redis))
        self._log.info("holding the lease", owner=self._owner)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reporter.run)
                engine = await open_engine(self._redis, self._mapping, self._settings.engine)
                reached("lease taken")
                if await engine.install():
                    reached("recipe installed")
                    await request_sweep(self._redis, engine.names, "the recipe was installed")
                tasks.start_soon(supervise, engine)
                if not engine.captures_plain_clients:
                    listener = Listener(
                        self._redis, engine, lease, self._settings.mappings, timeout=self._settings.redis_timeout
                    )
                    tasks.start_soon(listener.run)
                await prepare(self._store, reporter, self._warn, self._log.info)
                tasks.start_soon(tidy, self._store, self._warn)
                async with own_wire(self._redis) as wire:
                    term = Term(lease)
                    tasks.start_soon(MongoWatch(self._store, term, self._mongo_holds).run)
                    await begin(
                        term,
                        engine,
                        self._store,
                        reporter,
                        ask_first=self._settings.rewind == "report",
                        put_back=self._put_back,
                        warm=partial(self._begin_warming, tasks, engine, reporter, term),
                    )
                    batch_size = self._settings.batch_size
                    await Committer(wire, self._store, engine, reporter, term, batch_size=batch_size).run()
        finally:
            await reporter.withdraw()

    def _mongo_holds(self) -> None:
        """MongoDB holds what was acknowledged: it is whole again, if it was put back."""
        self._put_back = False

    def _begin_warming(self, tasks: TaskGroup, engine: Engine, reporter: Reporter, term: Term) -> None:
        reporter.warming(0, 1)
        tasks.start_soon(self._warm, engine, reporter, term)

    async def _warm(self, engine: Engine, reporter: Reporter, term: Term) -> None:
        """Give Redis all that only MongoDB holds: until then plain clients find it absent; the API reads it there."""
        pace = Progress()

        def advance(done: int, total: int) -> None:
            reporter.warming(done, total)
            if (said := pace.said(done, total)) is not None:
                self._log.info("warming Redis", **said._asdict())

        warm = Warm(self._redis, self._store, engine, term, on_progress=advance)
        while True:
            try:
                given = await warm.run()
            except* (*_RESTART, RedisRefused, MongoError) as errors:
                self._warn(f"Redis is not warm yet: {reasons(errors)}")
            else:
                self._log.info("Redis is warm again", given=given)
                return reporter.warming(0, 0)
            await anyio.sleep(LOOK_EVERY)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._log.warning("something isn't as it should be; commits go on", reason=text)
