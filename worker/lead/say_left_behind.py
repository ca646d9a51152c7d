"""Says which recipes were left behind by mappings that there aren't any more."""

import anyio
import structlog

from gears.engines import open_engine
from gears.engines.left_behind_recipes import find_left_behind
from gears.errors import ConfigError
from gears.in_redis.client import FAILED, Redis
from gears.process.settings import Settings

_EVERY = 30.0
"""Seconds between looks: a worker that still reads such a stream now may end."""

_RETRY = 1.0


async def tell_left_behind(redis: Redis, settings: Settings) -> None:
    """Say it once of each, until cancelled."""
    log = structlog.get_logger()
    told = set[str]()
    while True:
        pause = _EVERY
        try:
            engine = await open_engine(redis, settings.mappings[0], settings.engine)
            for left in await find_left_behind(engine, settings.mappings):
                if left.prefix not in told:
                    told.add(left.prefix)
                    log.warning("a recipe was left behind", mapping=left.prefix, reason=left.problem)
        except (*FAILED, ConfigError):  # whoever commits says so
            pause = _RETRY
        await anyio.sleep(pause)
