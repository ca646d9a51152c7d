"""Making MongoDB ready for commits: before the first one, and beside them."""

from collections.abc import Callable

import anyio
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from gears.errors import Unfit
from gears.in_mongo.client import MongoError
from gears.in_mongo.collection.fitness import sharding_rule
from gears.in_mongo.errors.describe import held_up
from gears.in_mongo.store import Store
from worker.lead.watch_mongo import LOOK_EVERY
from worker.reporter import Reporter


async def prepare(store: Store, reporter: Reporter, warn: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Ensure that documents can be kept, however long MongoDB takes, or somebody, to make it possible.

    Args:
        store: the mapping's documents in MongoDB.
        reporter: where to say what it waits for.
        warn: told what isn't as it should be.
        tell: told what is good to know.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((MongoError, Unfit)),
        wait=wait_exponential(multiplier=0.4, max=3),
        sleep=anyio.sleep,
    ):
        with attempt:
            try:
                with reporter.patiently("MongoDB"):
                    found = await store.set_up.prepare(reporter.preparing)
            except Unfit as error:
                reporter.blocked(str(error))
                raise
            except MongoError as error:
                reporter.retrying(held_up(error))
                raise
            if found.collation:
                warn(f"the collection has the default collation {found.collation!r}; it isn't used for ids")
            rule = sharding_rule(found, store.mapping)
            if rule is not None:
                tell(f"the collection is {rule}")


async def tidy(store: Store, warn: Callable[[str], None]) -> None:
    """Ensure the indexes that nothing waits for; what MongoDB refuses is said once, and left until a restart.

    Args:
        store: the mapping's documents in MongoDB.
        warn: told what MongoDB refuses.
    """
    while True:
        try:
            for complaint in await store.set_up.tidy():
                warn(complaint)
        except MongoError:
            await anyio.sleep(LOOK_EVERY)
        else:
            return
