"""Work that is done once for each mapping, by a command, for a person or a script."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from gears.cli.command_line import CANNOT, FAILURES, complain, explain, saying_whom
from gears.cli.exception_groups import reasons
from gears.contract.mapping import Mapping
from gears.engines import Engine, open_engine
from gears.errors import ConfigError
from gears.in_mongo.client import addresses, close_client, open_client, ping
from gears.in_mongo.store import Store
from gears.in_redis.client import Redis, address, connect
from gears.process.settings import Settings

DONE, LEFT, FAILED = 0, 1, CANNOT
"""Exit codes: all is well, something is left to do, it could not be done."""

Work = Callable[[Redis, Store, Engine], Awaitable[int]]
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
            connect(settings.redis_url, timeout=settings.redis_timeout, touching=False) as redis,
            saying_whom(
                {
                    f"MongoDB at {addresses(mongo)}": partial(ping, mongo, timeout=settings.mongo_timeout),
                    f"Redis at {address(redis)}": redis.ping,
                }
            ),
        ):
            try:
                await redis.ping()
                await ping(mongo, timeout=settings.mongo_timeout)
            except FAILURES as error:
                complain(f"{', '.join(mapping.prefix for mapping in mappings)} {failure}: {explain(error)}")
                return FAILED
            for mapping in mappings:
                code = FAILED
                try:
                    engine = await open_engine(redis, mapping, settings.engine)
                    code = await work(redis, Store(mongo, mapping), engine)
                except* FAILURES as errors:
                    complain(f"{mapping.prefix} {failure}: {reasons(errors)}")
                worst = max(worst, code)
    finally:
        close_client(mongo)
    return worst


def _choose(mappings: Sequence[Mapping], prefix: str | None) -> list[Mapping]:
    chosen = [mapping for mapping in mappings if prefix in (None, mapping.prefix)]
    if not chosen:
        raise ConfigError(f"there is no mapping {prefix!r}; MAPPINGS has {', '.join(m.prefix for m in mappings)}")
    return chosen
