"""MongoDB frozen: what clients are told, and whether Redis goes on."""

import anyio

from tests.bench.cells import KEYS
from tests.bench.load import Job, Result
from tests.bench.stage import Stage, run

_BEFORE = 1.0


async def measure(stage: Stage, name: str, *, seconds: float) -> tuple[Result, Result]:
    """The answers of a contestant at 64 clients while MongoDB is cut off for so long, and those to PING meanwhile."""
    assert stage.edge is not None
    results: dict[str, Result] = {}
    contestant = stage.contestants[name]

    async def write() -> None:
        job = Job(protocol="", port=0, prefix="", clients=64, seconds=seconds + 2 * _BEFORE, keys=KEYS)
        results["writes"], _ = await contestant.under(job)

    async def ping() -> None:
        port = stage.stack.setup.redis_port
        results["pings"] = await run(Job(protocol="ping", port=port, prefix="", seconds=seconds, pause=0.002))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await anyio.sleep(_BEFORE)
        stage.edge.stall()
        tasks.start_soon(ping)
        await anyio.sleep(seconds)
        stage.edge.heal()
    return results["writes"], results["pings"]
