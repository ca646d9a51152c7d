"""What MongoDB can do."""

from collections.abc import AsyncGenerator
from typing import Any

from gears.cli.command_line import saying_whom
from gears.in_mongo.client import MongoError, addresses, close_client, open_client, see_server
from gears.in_mongo.collection.fitness import sharding_rule, unfit
from gears.in_mongo.errors.describe import describe
from gears.in_mongo.store import Store
from gears.process.settings import Settings
from writethrough.check.finding import Finding, tried

_OLDEST = (4, 4)


async def look_at_mongo(settings: Settings) -> AsyncGenerator[Finding, None]:
    """What MongoDB can do, one finding after the other; only one if it doesn't answer."""
    client = open_client(settings.mongo_uri, timeout=settings.mongo_timeout)
    where = addresses(client)

    async def see() -> dict[str, Any]:
        return await see_server(client, timeout=settings.mongo_timeout)

    try:
        async with saying_whom({f"MongoDB at {where}": see}):
            found = await tried("MongoDB", f"an answer from {where}", see)
            yield found
            if not found.has:
                return
            seen = await see()
            version = tuple(map(int, str(seen["version"]).split(".")[:2]))
            remedy = "use MongoDB 4.4 or later"
            yield Finding("MongoDB", f"version {seen['version']}", version >= _OLDEST, True, remedy)
            yield Finding(
                "MongoDB",
                "a replica set",
                bool(seen.get("setName") or seen.get("msg") == "isdbgrid"),
                follows="what is acknowledged is on the disk of this one server only",
            )
            for mapping in settings.mappings:
                store = Store(client, mapping)
                what = f"writes that a majority has in its journal, in {mapping.database}"
                yield await tried("MongoDB", what, store.set_up.try_write)
                yield await _collection(store)
    finally:
        close_client(client)


async def _collection(store: Store) -> Finding:
    what = f"a collection {store.mapping.namespace} that can keep documents"
    try:
        found = await store.set_up.look()
    except MongoError as error:
        return Finding("MongoDB", what, has=False, needed=True, follows=describe(error))
    reason, rule = unfit(found, store.mapping), sharding_rule(found, store.mapping)
    return Finding("MongoDB", f"{what}, {rule}" if rule and not reason else what, reason is None, True, reason or "")
