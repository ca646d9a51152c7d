"""How everything is doing, asked of Redis and MongoDB at once and within a short time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import anyio
from motor.motor_asyncio import AsyncIOMotorClient

from gears.contract.mapping import Mapping as KeyMapping
from gears.engines import CaptureStatus
from gears.engines.engine_of_mapping import Engines
from gears.errors import CaptureMissing, RedisAway
from gears.in_mongo.client import MongoError, ping, within
from gears.in_mongo.collection.fitness import Collection
from gears.in_mongo.errors import describe as mongo_texts
from gears.in_mongo.reports.audit_report import AuditReport
from gears.in_mongo.reports.given_back_report import Rewinds
from gears.in_mongo.store import Store
from gears.in_redis import describe_errors as redis_texts
from gears.in_redis.client import Redis, RedisError
from gears.progress.backlog import Backlog, read_backlog
from gears.progress.reconciler_state import ReconcilerState, read_reconciler

DEADLINE = 1.5
"""Seconds that each question may take."""

_FAILURES = (RedisError, MongoError, RedisAway, CaptureMissing, OSError, ValueError)


@dataclass(slots=True)
class MappingState:
    """How one mapping is doing; what couldn't be had is None, with the reason under its name in `errors`."""

    mapping: KeyMapping
    engine: str | None = None
    capture: CaptureStatus | None = None
    backlog: Backlog | None = None
    dead_letters: int | None = None
    last_audit: AuditReport | None = None
    reconciler: ReconcilerState | None = None
    rewinds: Rewinds | None = None
    collection: Collection | None = None
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Inspection:
    """How everything is doing.

    Args:
        mappings: one a mapping.
        errors: why `redis` or `mongo` can't be reached, where that is so.
        warnings: what works now and is dangerous.
        round_trips: how many seconds `redis` and `mongo` took to answer, where they did.
    """

    mappings: Sequence[MappingState]
    errors: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    round_trips: dict[str, float] = field(default_factory=dict)


class Inspector:
    """Asks.

    Args:
        redis: Redis.
        mongo: MongoDB.
        stores: the documents of each mapping, by prefix.
        engines: the engines of the mappings.
    """

    def __init__(
        self, redis: Redis, mongo: "AsyncIOMotorClient[Any]", stores: Mapping[str, Store], engines: Engines
    ) -> None:
        self._redis = redis
        self._mongo = mongo
        self._stores = stores
        self._engines = engines

    async def inspect(self, *, thorough: bool, capture: bool = True) -> Inspection:
        """Ask everything; takes little more than `DEADLINE`, whatever is away.

        Args:
            thorough: also ask what readiness doesn't depend on: the reconciler, dead letters, the collection, warnings.
            capture: also ask the recipes.
        """
        inspection = Inspection([MappingState(store.mapping) for store in self._stores.values()])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_ask, "redis", inspection.errors, lambda: self._ping_redis(inspection))
            tasks.start_soon(_ask, "mongo", inspection.errors, lambda: self._ping_mongo(inspection))
            if thorough:
                tasks.start_soon(_ask, "warnings", {}, lambda: self._warn(inspection))
            for state in inspection.mappings:
                self._inspect_mapping(state, tasks.start_soon, thorough=thorough, capture=capture)
        return inspection

    def _inspect_mapping(
        self, state: MappingState, start: Callable[..., object], *, thorough: bool, capture: bool
    ) -> None:
        async def recipe() -> None:
            engine = await self._engines.get(state.mapping.prefix)
            state.engine = engine.name
            state.capture = await engine.status()

        async def backlog() -> None:
            state.backlog = await read_backlog(self._redis, state.mapping)

        async def dead_letters() -> None:
            with within(DEADLINE):
                state.dead_letters = await self._stores[state.mapping.prefix].dead_letters.count()

        async def last_audit() -> None:
            with within(DEADLINE):
                state.last_audit = await self._stores[state.mapping.prefix].reports.last_audit()

        async def reconciler() -> None:
            state.reconciler = await read_reconciler(self._redis, state.mapping)

        async def rewinds() -> None:
            with within(DEADLINE):
                state.rewinds = await self._stores[state.mapping.prefix].reports.rewinds()

        async def collection() -> None:
            with within(DEADLINE):
                state.collection = await self._stores[state.mapping.prefix].set_up.look()

        if capture:
            start(_ask, "capture", state.errors, recipe)
        start(_ask, "backlog", state.errors, backlog)
        if thorough:
            start(_ask, "dead_letters", state.errors, dead_letters)
            start(_ask, "last_audit", state.errors, last_audit)
            start(_ask, "reconciler", state.errors, reconciler)
            start(_ask, "rewinds", state.errors, rewinds)
            start(_ask, "collection", state.errors, collection)

    async def _ping_redis(self, inspection: Inspection) -> None:
        started = perf_counter()
        await self._redis.execute_command("PING")
        inspection.round_trips["redis"] = perf_counter() - started

    async def _ping_mongo(self, inspection: Inspection) -> None:
        started = perf_counter()
        await ping(self._mongo, timeout=DEADLINE * 0.8)  # so that the driver can say why, before time is up
        inspection.round_trips["mongo"] = perf_counter() - started

    async def _warn(self, inspection: Inspection) -> None:
        policy = str((await self._redis.info("memory")).get("maxmemory_policy", ""))
        if policy.startswith("allkeys-"):
            inspection.warnings.append(
                f"Redis's maxmemory-policy is {policy}: it may evict a sync stream, and with it writes that MongoDB "
                "doesn't have yet; use noeviction or one of volatile-*"
            )


async def _ask(name: str, errors: dict[str, str], question: Callable[[], Awaitable[None]]) -> None:
    errors[name] = f"no answer within {DEADLINE} s"
    with anyio.move_on_after(DEADLINE):
        try:
            await question()
        except _FAILURES as error:
            errors[name] = mongo_texts.describe(error) if isinstance(error, MongoError) else redis_texts.describe(error)
        else:
            del errors[name]
