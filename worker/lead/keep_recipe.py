"""Keep the recipe in place: install it when it is missing, of another version, or failing."""

import anyio
import structlog
from redis.exceptions import ResponseError

from gears.engines import Engine
from gears.in_redis.client import AWAY
from gears.in_redis.describe_errors import describe
from worker.audit.reconciler import request_sweep

_EVERY = 1.0


async def supervise(engine: Engine) -> None:
    """Look after the recipe until cancelled."""
    log = structlog.get_logger().bind(mapping=engine.mapping.prefix, engine=engine.name)
    failed = ""
    while True:
        await engine.release()
        try:
            status = await engine.status()
            if status.problem and await engine.install():
                log.warning("installed the recipe", because=status.problem, version=status.expected)
                await request_sweep(engine.redis, engine.names, f"the recipe was installed: {status.problem}")
            failed = ""
        except (*AWAY, ResponseError) as error:
            reason = describe(error)
            if reason != failed:
                log.error("could not look after the recipe", error=reason)
                failed = reason
        await anyio.sleep(_EVERY)
