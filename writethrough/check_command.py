"""`writethrough check`: what the two servers can do, tried out, and what follows where one can't."""

import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import typer
from redis.exceptions import ResponseError

from gears.cli.command_line import FAILURES, explain, failing_plainly, printable, run_command, saying_whom
from gears.cli.recipe_command import JsonOption
from gears.contract.redis_names import Names
from gears.engines.detect import ENGINES, detect
from gears.errors import ConfigError
from gears.in_mongo.client import MongoError, addresses, close_client, open_client, see_server
from gears.in_mongo.collection.fitness import unfit
from gears.in_mongo.errors.describe import describe
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis, address, connect
from gears.process.settings import Settings, read_settings
from worker.audit.recheck.keyspace_events import SETTING

_OLDEST_MONGODB = (4, 4)
_EVENTS = {"K": "K", "g": "gA", "d": "dA", "x": "xA", "e": "eA"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried.

    Args:
        server: `Redis` or `MongoDB`.
        what: what it was.
        has: whether the server can do it.
        needed: whether nothing works without.
        follows: what that means, and what to do; empty where there is nothing to say.
    """

    server: str
    what: str
    has: bool
    needed: bool = False
    follows: str = ""


def check(as_json: JsonOption = False) -> None:
    """Try out what Redis and MongoDB can do. Exits with 1 when something is missing without which nothing works."""
    lacking = 0

    async def run() -> int:
        nonlocal lacking
        settings = read_settings()
        for look in (_redis, _mongo):
            async with aclosing(look(settings)) as findings:
                async for finding in findings:
                    lacking += finding.needed and not finding.has
                    _say(finding, as_json=as_json)
        return 1 if lacking else 0

    with failing_plainly():
        code = run_command(run)
    raise typer.Exit(code)


async def _redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    async with connect(settings.redis_url, timeout=settings.redis_timeout) as redis:
        where = address(redis)
        async with saying_whom({f"Redis at {where}": redis.ping}):
            found = await _tried("Redis", f"an answer from {where}", redis.ping)
            yield found
            if not found.has:
                return
            info: dict[str, Any] = await redis.info()
            yield Finding("Redis", f"version {info.get('redis_version')}", has=True)
            role = str(info.get("role"))
            yield Finding(
                "Redis", f"a primary (it is a {role})", role == "master", True, "set REDIS_URL to the primary"
            )
            single = not int(info.get("cluster_enabled", 0))
            yield Finding("Redis", "no cluster", single, True, "Redis Cluster isn't supported; use a single primary")
            for mapping in settings.mappings:
                yield await _json(redis, Names(mapping.prefix))
            yield await _engine(redis, settings.engine)
            yield await _notifications(redis)
            yield Finding(
                "Redis",
                "an append-only file",
                bool(info.get("aof_enabled")),
                follows="a restart forgets all: what MongoDB has is given back, what wasn't committed is lost; set "
                "appendonly to yes",
            )
            policy = str(info.get("maxmemory_policy"))
            yield Finding(
                "Redis",
                f"a maxmemory-policy that keeps the sync streams ({policy})",
                not policy.startswith("allkeys-"),
                follows="writes that MongoDB doesn't have yet may be evicted; set noeviction or one of volatile-*",
            )


async def _json(redis: Redis, names: Names) -> Finding:
    async def write() -> None:
        await redis.execute_command("JSON.SET", names.probe, "$", "1")
        await redis.delete(names.probe)

    remedy = "; load RedisJSON, or use Redis Stack or Redis 8; or grant the user its rights: writethrough access redis"
    return await _tried("Redis", f"JSON documents, and the right to keep {names.stream}", write, remedy)


async def _engine(redis: Redis, configured: str) -> Finding:
    try:
        name = await detect(redis) if configured == "auto" else configured
    except ConfigError as error:
        return Finding("Redis", "an engine to capture writes", has=False, needed=True, follows=str(error))
    captures = ENGINES[name].captures_plain_clients
    return Finding(
        "Redis",
        f"an engine ({name}) that captures what plain clients write, in the same atomic unit",
        captures,
        follows="the worker hears of plain clients' writes instead, within a second; the API's are captured the same",
    )


async def _notifications(redis: Redis) -> Finding:
    what = "keyspace notifications"
    try:
        reply: Any = await redis.config_get(SETTING)
    except ResponseError:
        return Finding("Redis", what, has=False, follows=f"CONFIG isn't allowed; see that {SETTING} holds Kgdxe")
    flags = str(reply.get(SETTING, ""))
    missing = "".join(flag for flag, implied in _EVENTS.items() if not set(implied) & set(flags))
    follows = f"the worker adds {missing} to {SETTING}; where it may not, set that by hand"
    return Finding("Redis", what, not missing, follows=follows if missing else "")


async def _mongo(settings: Settings) -> AsyncGenerator[Finding, None]:
    client = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    where = addresses(client)

    async def see() -> dict[str, Any]:
        return await see_server(client, timeout=settings.mongo_timeout)

    try:
        async with saying_whom({f"MongoDB at {where}": see}):
            found = await _tried("MongoDB", f"an answer from {where}", see)
            yield found
            if not found.has:
                return
            seen = await see()
            version = tuple(map(int, str(seen["version"]).split(".")[:2]))
            remedy = "use MongoDB 4.4 or later"
            yield Finding("MongoDB", f"version {seen['version']}", version >= _OLDEST_MONGODB, True, remedy)
            yield Finding(
                "MongoDB",
                "a replica set",
                bool(seen.get("setName") or seen.get("msg") == "isdbgrid"),
                follows="what is acknowledged is on the disk of this one server only",
            )
            for mapping in settings.mappings:
                store = Store(client, mapping)
                what = f"writes that a majority has in its journal, in {mapping.database}"
                yield await _tried("MongoDB", what, store.set_up.try_write)
                yield await _collection(store)
    finally:
        close_client(client)


async def _collection(store: Store) -> Finding:
    what = f"a collection {store.mapping.namespace} that can keep documents"
    try:
        reason = unfit(await store.set_up.look(), store.mapping)
    except MongoError as error:
        return Finding("MongoDB", what, has=False, needed=True, follows=describe(error))
    return Finding("MongoDB", what, reason is None, True, reason or "")


async def _tried(server: str, what: str, attempt: Callable[[], Awaitable[object]], remedy: str = "") -> Finding:
    """What an attempt shows of something that is needed."""
    try:
        await attempt()
    except FAILURES as error:
        return Finding(server, what, has=False, needed=True, follows=explain(error) + remedy)
    return Finding(server, what, has=True, needed=True)


def _say(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(finding)) + "\n")
    else:
        outcome = "has" if finding.has else "lacks" if finding.needed else "has not"
        follows = f": {finding.follows}" if finding.follows and not finding.has else ""
        sys.stdout.write(printable(f"{finding.server} {outcome} {finding.what}{follows}") + "\n")
    sys.stdout.flush()
