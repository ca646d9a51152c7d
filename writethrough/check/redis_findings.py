"""What Redis can do."""

from collections.abc import AsyncGenerator
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from gears.access.redis_acl import commands_of
from gears.cli.command_line import FAILURES, explain, saying_whom
from gears.contract.redis_names import Names
from gears.engines.detect import ENGINES, detect
from gears.engines.function import Function
from gears.errors import ConfigError
from gears.in_redis.client import Redis, address, connect
from gears.in_redis.describe_errors import CLUSTER
from gears.process.settings import Settings
from worker.audit.recheck.keyspace_events import SETTING, KeyspaceEvents, flags_missing
from writethrough.check.finding import Finding, tried

_GRANT = "; users get their rights by: writethrough access redis"

_TOLD = ("config", "module")
"""Commands of which other findings tell what follows."""

_SCRIPT = """
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[1], '*', 'key', KEYS[2])
redis.call('DEL', KEYS[1])
return redis.call('EXISTS', KEYS[2]) .. redis.call('INFO', 'replication')
"""
"""What recipes do: look at a document's key and add to a stream, in one step, and ask whose memory this is."""


async def look_at_redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    """What Redis can do, one finding after the other; those without which the others make no sense end it."""
    async with connect(settings.redis_url, timeout=settings.redis_timeout) as redis:
        where = address(redis)
        async with saying_whom({f"Redis at {where}": redis.ping}):
            for what, attempt, remedy in ((f"an answer from {where}", redis.ping, ""), ("INFO", redis.info, _GRANT)):
                found = await tried("Redis", what, attempt, remedy)
                yield found
                if not found.has:
                    return
            info: dict[str, Any] = await redis.info()
            yield Finding("Redis", f"version {info.get('redis_version')}", has=True)
            role = str(info.get("role") or info.get("redis_mode"))
            remedy = "set REDIS_URL to the primary, or write redis+sentinel://host:port,host:port/service/0"
            yield Finding("Redis", f"a primary (it is a {role})", role == "master", True, remedy)
            single = not int(info.get("cluster_enabled", 0))
            yield Finding("Redis", "no cluster", single, True, CLUSTER)
            if not single:
                return
            for mapping in settings.mappings:
                yield await _json(redis, Names(mapping.prefix))
                yield await _script(redis, Names(mapping.prefix))
                yield await _channel(redis, Names(mapping.prefix))
            async for found in _engine(redis, settings.engine):
                yield found
            yield await _notifications(redis, settings)
            yield Finding(
                "Redis",
                "an append-only file",
                bool(info.get("aof_enabled")),
                follows="a restart forgets all: what MongoDB has is given back, what wasn't committed is lost; set "
                "appendonly to yes",
            )
            policy = str(info.get("maxmemory_policy", "it doesn't tell which it has"))
            yield Finding(
                "Redis",
                f"a maxmemory-policy that keeps the sync streams ({policy})",
                policy == "noeviction" or policy.startswith("volatile-"),
                follows="writes that MongoDB doesn't have yet may be evicted; set noeviction or one of volatile-*",
            )


def _nobodys(names: Names) -> str:
    """A key that is no document's, since no id is empty, and to which both the worker and the API may write."""
    return names.ticket


async def _json(redis: Redis, names: Names) -> Finding:
    async def write() -> None:
        await redis.execute_command("JSON.SET", _nobodys(names), "$", "1")
        await redis.delete(_nobodys(names))

    remedy = f"; load RedisJSON, or use Redis Stack or Redis 8{_GRANT}"
    return await tried("Redis", f"JSON documents, and the right to keep {names.stream}", write, remedy)


async def _script(redis: Redis, names: Names) -> Finding:
    async def run() -> None:
        await redis.eval(_SCRIPT, 2, _nobodys(names), f"{names.prefix}:")

    remedy = "; use a Redis that isn't sharded" + _GRANT
    return await tried("Redis", f"scripts that see {names.prefix}:* and {names.stream} in one step", run, remedy)


async def _channel(redis: Redis, names: Names) -> Finding:
    async def listen() -> None:
        async with redis.pubsub() as subscription:
            await subscription.subscribe(names.channel)
            await subscription.get_message(timeout=1.0)  # an error, if that isn't allowed

    remedy = "; without it nobody is told that a write is committed" + _GRANT
    return await tried("Redis", f"the channel {names.channel}", listen, remedy)


async def _engine(redis: Redis, configured: str) -> AsyncGenerator[Finding, None]:
    try:
        name = await detect(redis) if configured == "auto" else configured
    except ConfigError as error:
        yield Finding("Redis", "an engine to capture writes", has=False, needed=True, follows=str(error))
        return
    yield Finding(
        "Redis",
        f"an engine ({name}) that captures what plain clients write, in the same atomic unit",
        ENGINES[name].captures_plain_clients,
        follows="the worker hears of plain clients' writes instead, within a second; the API's are captured the same",
    )
    if name == Function.name:
        yield await _refuses_only_nonsense(redis, "FUNCTION LOAD", "#!lua name=writethrough_check\n")
        yield await _refuses_only_nonsense(redis, "FCALL", "writethrough_check", 0)
    yield await _commands(redis, name)


async def _refuses_only_nonsense(redis: Redis, *command: str | int) -> Finding:
    """Whether this command, of which nothing can come, is there and allowed."""
    what = f"the right to use {command[0]}"
    try:
        await redis.execute_command(*command)
    except NoPermissionError as error:
        loads = command[0] == "FUNCTION LOAD"
        installs = "; the worker installs the recipe, so its user needs this right" if loads else ""
        return Finding("Redis", what, False, not loads, explain(error) + installs + _GRANT)
    except ResponseError as error:
        known = "unknown command" not in str(error).lower()
        return Finding("Redis", what, known, True, "it has no functions; use Redis 7 or later, or Valkey")
    except FAILURES as error:
        return Finding("Redis", what, has=False, needed=True, follows=explain(error))
    return Finding("Redis", what, has=True, needed=True)


async def _commands(redis: Redis, engine: str) -> Finding:
    what = "all commands that the worker and the API use"
    wanted = [name for name in commands_of(engine) if name not in _TOLD]
    try:
        known: Any = await redis.execute_command("COMMAND INFO", *wanted)
    except FAILURES as error:
        return Finding(
            "Redis", what, has=False, follows=f"COMMAND isn't allowed, so nobody can tell ({explain(error)})"
        )
    missing = ", ".join(name.upper() for name, found in zip(wanted, known, strict=True) if not found)
    return Finding("Redis", what, not missing, follows=f"what takes {missing} fails")


async def _notifications(redis: Redis, settings: Settings) -> Finding:
    what = "keyspace notifications"
    events = KeyspaceEvents(redis, settings.mappings[0].prefix, timeout=settings.redis_timeout)
    flags = await events.setting()
    if flags is not None:
        missing = flags_missing(flags)
        follows = f"the worker adds {missing} to {SETTING}; where it may not, set that by hand"
        return Finding("Redis", what, not missing, follows=follows)
    what += ", as a change of a key shows; CONFIG isn't allowed"
    try:
        await events.probe()
    except FAILURES as error:
        follows = f"{explain(error)}; until then plain clients' writes that aren't captured are found by sweeps alone"
        return Finding("Redis", what, has=False, follows=follows)
    return Finding("Redis", what, has=True)
