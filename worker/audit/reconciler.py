"""The reconciler: rechecks what changes, and sweeps all of a mapping, with repair, when something may have been missed.

One reconciler per mapping is at work, under a lease of its own; a standby takes over. Beginning again means sweeping
again, so after any failure it simply begins again.
"""

from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

import anyio
import structlog
from motor.motor_asyncio import AsyncIOMotorClient

from gears.cli.exception_groups import reasons
from gears.contract.mapping import Mapping
from gears.contract.redis_names import Names
from gears.engines import open_engine
from gears.errors import CaptureMissing, ConfigError, CouldNotCompare, LeaseLost, OutcomeUnknown, RedisAway
from gears.in_mongo.client import Document, MongoError
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.store import Store
from gears.in_redis.client import AWAY, Redis, RedisError
from gears.process.settings import Settings
from gears.progress.backlog import WorkerState, read_backlog
from gears.progress.reconciler_state import read_reconciler
from worker.audit.audit_and_sweep import Audit
from worker.audit.recheck.recheck import Recheck
from worker.lease.lease import Lease, process_name
from worker.reporter import ReconcilerReporter

_POLL = 0.5
_MAX_BACKOFF = 10.0
_SAID = {"because", "compared", "missing", "stale", "ahead", "cold", "deleted", "repaired", "seconds"}
_RESTART = (CaptureMissing, ConfigError, CouldNotCompare, LeaseLost, OutcomeUnknown, RedisAway, RedisError, MongoError)


class Reconciler:
    """Takes part in reconciling one mapping."""

    def __init__(
        self, redis: Redis, mongo: "AsyncIOMotorClient[Document]", mapping: Mapping, settings: Settings
    ) -> None:
        self._redis = redis
        self._mapping = mapping
        self._settings = settings
        self._store = Store(mongo, mapping)
        self._names = Names(mapping.prefix)
        self._reporter = ReconcilerReporter(redis, mapping, process_name())
        self._because = "start"
        self._failing = False
        self._standing_by = False
        self._backoff = _POLL
        self._log = structlog.get_logger().bind(mapping=mapping.prefix)

    async def run(self) -> None:
        """Reconcile whenever nobody else does, until cancelled."""
        lease = Lease(self._redis, self._names.reconciler, self._settings.lease_ttl)
        while True:
            try:
                self._stand_by(await lease.hold(self._reconcile))
                await anyio.sleep(_POLL)
            except* (*_RESTART, *AWAY) as errors:
                await self._back_off("reconciling stopped; trying again", reasons(errors))
            except* Exception as errors:  # noqa: BLE001 whatever it is, committing goes on
                await self._back_off("reconciling crashed; trying again", reasons(errors), exc_info=errors)

    def _stand_by(self, led: bool) -> None:
        """Say once that another reconciler is at work."""
        if not led and not self._standing_by:
            self._log.info("standing by: another reconciler is at work")
        self._standing_by = not led

    async def _back_off(self, event: str, reason: str, **more: Any) -> None:
        if not self._failing:
            self._log.error(event, reason=reason, **more)
            self._because = f"changes may have been missed, since reconciling had stopped: {reason}"
        self._failing = True
        await anyio.sleep(self._backoff)
        self._backoff = min(self._backoff * 2, _MAX_BACKOFF)

    async def _reconcile(self) -> None:
        """Listen; sweep now, and again for every reason there is."""
        self._standing_by = False
        self._reporter.starting()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._reporter.run)
                committer = await self._committing()
                listening = anyio.Event()
                tasks.start_soon(self._recheck, listening)
                await listening.wait()
                while True:
                    await self._sweep()
                    self._because = await self._next_reason(committer)
                    committer = await self._committing()
        finally:
            await self._reporter.withdraw()

    async def _recheck(self, listening: anyio.Event) -> None:
        recheck = Recheck(
            self._redis,
            self._store,
            await open_engine(self._redis, self._mapping, self._settings.engine),
            self._reporter,
            partial(request_sweep, self._redis, self._names),
            partial(request_sweeps, self._redis, self._settings.mappings),
            patience=self._settings.mongo_timeout,
            timeout=self._settings.redis_timeout,
        )
        await recheck.run(listening)

    async def _committing(self) -> WorkerState:
        """Wait for a committer that commits: until then, nothing could be proven."""
        while True:
            worker = (await read_backlog(self._redis, self._mapping)).worker
            if worker is not None and worker.state == "committing":
                return worker
            await anyio.sleep(_POLL)

    async def _next_reason(self, before: WorkerState) -> str:
        """Wait until there is a reason to sweep again."""
        due = monotonic() + self._settings.audit_interval
        while monotonic() < due:
            requested: Any = await self._redis.getdel(self._names.sweep)
            if requested is not None:
                return str(requested.decode(errors="replace"))
            now = await self._committing()
            if (now.owner, now.since) != (before.owner, before.since):
                return "commits were held up, Redis was restarted, or another committer took over"
            await anyio.sleep(_POLL)
        return "schedule"

    async def _sweep(self) -> None:
        await self._redis.delete(self._names.sweep)  # what was asked for until now, this sweep does
        engine = await open_engine(self._redis, self._mapping, self._settings.engine)
        audit = Audit(
            self._redis,
            self._store,
            engine,
            rate=self._settings.audit_rate,
            patience=self._settings.mongo_timeout,
            repairing=True,
            deleting=self._settings.cold == "delete",
            because=self._because,
        )
        self._say(await audit.run())
        self._failing, self._backoff = False, _POLL

    def _say(self, report: AuditReport) -> None:
        counts = report.model_dump(include=_SAID)
        for warning in report.warnings:
            self._log.warning(warning)
        if report.left:
            self._log.error("swept; drift is left", left=report.left, **counts)
        else:
            self._log.info("swept", **counts)


async def request_sweep(redis: Redis, names: Names, reason: str) -> None:
    """Have the mapping's reconciler sweep within a second or so; requests made meanwhile are one sweep."""
    await redis.set(names.sweep, reason)


async def request_sweeps(redis: Redis, mappings: Iterable[Mapping]) -> None:
    """Have those swept whose reconcilers listened in vain, since Redis, with one setting for all, told them nothing."""
    for mapping in mappings:
        reconciler = await read_reconciler(redis, mapping)
        if reconciler is not None and reconciler.state == "listening":
            await request_sweep(redis, Names(mapping.prefix), "keyspace notifications had been switched off")
