"""Work that is done once for each mapping, by a command, for a person or a script."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from gears.audit_store import AuditStore
from gears.command import saying_whom
from gears.engines import Engine, open_engine
from gears.errors import CaptureMissing, ConfigError, CouldNotCompare, OutcomeUnknown, RedisAway, RedisRefused
from gears.mapping import Mapping
from gears.mongo import MongoError, addresses, close_client, open_client, ping
from gears.redis import AWAY, Redis, RedisError, address, connect
from gears.settings import Settings
from worker.groups import reasons

DONE, LEFT, FAILED = 0, 1, 2
"""Exit codes: all is well, something is left to do, it could not be done."""

_FAILURES = (
    CaptureMissing,
    ConfigError,
    CouldNotCompare,
    OutcomeUnknown,
    RedisAway,
    RedisRefused,
    RedisError,
    MongoError,
    *AWAY,
)

Work = Callable[[Redis, AuditStore, Engine], Awaitable[int]]
"""What is done for a mapping; returns an exit code."""


async def for_each(settings: Settings, prefix: str | None, work: Work, failure: str) -> int:
    """Do this for every mapping, one after the other; returns the worst exit code.

    Args:
        settings: where the servers are.
        prefix: only for the mapping with this prefix; None for all.
        work: what to do.
        failure: what to say of a mapping when it fails.

    Raises:
        ConfigError: a setting can't be used, or there is no such mapping.
    """
    mappings = _choose(settings.mappings, prefix)
    mongo = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    worst = DONE
    try:
        async with (
            connect(settings.redis_url, timeout=settings.redis_timeout) as redis,
            saying_whom(
                {
                    f"MongoDB at {addresses(mongo)}": partial(ping, mongo, timeout=settings.mongo_timeout),
                    f"Redis at {address(redis)}": redis.ping,
                }
            ),
        ):
            for mapping in mappings:
                code = FAILED
                try:
                    await ping(mongo, timeout=settings.mongo_timeout)
                    engine = await open_engine(redis, mapping, settings.engine)
                    code = await work(redis, AuditStore(mongo, mapping), engine)
                except* _FAILURES as errors:
                    sys.stderr.write(f"worker: {mapping.prefix} {failure}: {reasons(errors)}\n")
                worst = max(worst, code)
    finally:
        close_client(mongo)
    return worst


def _choose(mappings: Sequence[Mapping], prefix: str | None) -> list[Mapping]:
    chosen = [mapping for mapping in mappings if prefix in (None, mapping.prefix)]
    if not chosen:
        raise ConfigError(f"there is no mapping {prefix!r}; MAPPINGS has {', '.join(m.prefix for m in mappings)}")
    return chosen
