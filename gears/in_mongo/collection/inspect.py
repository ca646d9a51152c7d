"""Looks at a collection in MongoDB: options, indexes, sharding, and how far a build of an index is."""

from collections.abc import Awaitable, Callable
from typing import Any

from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import OperationFailure

from gears.in_mongo.collection.fitness import Collection, Document, Index, parse_indexes
from gears.in_mongo.errors.describe import describe
from gears.in_mongo.errors.what_errors_mean import Cause, Meaning, judge

RawCollection = AsyncIOMotorCollection[Any]

_MOST = 1000
"""Indexes in one answer; a collection can have 64."""


async def look(documents: RawCollection) -> Collection:
    """What is known of a collection; what the server doesn't know, or the user may not ask, isn't.

    Raises:
        MongoError: the server can't be reached, or doesn't answer in time.
    """
    database, name = documents.database, documents.name
    unknown: dict[str, str] = {}

    async def list_collection() -> Document:
        found = await database.command("listCollections", filter={"name": name})
        return next(iter(found["cursor"]["firstBatch"]), {})

    async def find_sharding() -> Document | None:
        collections = database.client.get_database("config")["collections"]
        found: Document | None = await collections.find_one({"_id": f"{database.name}.{name}"})
        return found

    async def ask(part: str, question: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await question()
        except OperationFailure as error:
            if judge(error).cause is Cause.SLOW:
                raise
            unknown[part] = describe(error)
            return None

    listed = await ask("options", list_collection)
    indexes = await ask("indexes", lambda: _list_indexes(documents))
    sharding = await ask("sharding", find_sharding)
    return Collection.parse(listed, indexes, sharding, unknown)


async def look_at_indexes(documents: RawCollection) -> tuple[Index, ...] | None:
    """A collection's indexes, those that are being built maybe among them; None where nobody can tell.

    Raises:
        MongoError: the server can't be reached, or doesn't answer in time.
    """
    try:
        return parse_indexes(await _list_indexes(documents))
    except OperationFailure as error:
        if judge(error).cause is Cause.SLOW:
            raise
        return None


async def build_progress(documents: RawCollection) -> float | None:
    """How far the build of an index on this collection is, from 0 to 1; None where nobody can tell.

    Raises:
        MongoError: the server doesn't say, or the user may not ask.
    """
    name = documents.name
    found = await documents.database.client.admin.command({"currentOp": 1, "command.createIndexes": name})
    return progress_of(found.get("inprog", ()), documents.database.name, name)


def progress_of(operations: Any, database: str, collection: str) -> float | None:
    """The progress of the build on this collection among operations that `currentOp` lists; of several, the least."""
    done = []
    for operation in operations:
        command, progress = operation.get("command") or {}, operation.get("progress") or {}
        mine = command.get("createIndexes") == collection and command.get("$db", database) == database
        if mine and progress.get("total"):
            done.append(min(1.0, float(progress.get("done", 0)) / float(progress["total"])))
    return min(done, default=None)


async def _list_indexes(documents: RawCollection) -> list[Document]:
    try:
        found = await documents.database.command("listIndexes", documents.name, cursor={"batchSize": _MOST})
    except OperationFailure as error:
        if judge(error).meaning is Meaning.NO_COLLECTION:
            return []
        raise
    return list(found["cursor"]["firstBatch"])
