"""The indexes that keep things tidy: nothing depends on them but space and time, so nothing waits for them."""

from pymongo.errors import OperationFailure

from gears.in_mongo.collection.build_index import build
from gears.in_mongo.collection.fitness import Index, shell_name
from gears.in_mongo.collection.inspect import RawCollection
from gears.in_mongo.errors.describe import describe


async def ensure_tidy(dead_letters: RawCollection, tombstones: RawCollection, *, days: int) -> list[str]:
    """Ensure the index by which dead letters are found, and the one by which MongoDB deletes old tombstones.

    Args:
        dead_letters: where they are kept.
        tombstones: where those are.
        days: until a tombstone is deleted.

    Returns:
        Why one can't be had, what comes of that, and what mends it; empty when all is well.

    Raises:
        MongoError: MongoDB can't be reached.
    """
    by_key = Index({"key": {"mapping": 1, "key": 1}, "name": "mapping_1_key_1"})
    by_age = Index({"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": days * 86_400})
    asked = (
        (dead_letters, by_key, "dead letters are found slowly"),
        (tombstones, by_age, f"MongoDB doesn't delete tombstones after {days} days"),
    )
    found = [await _ensure(documents, index, outcome) for documents, index, outcome in asked]
    return [complaint for complaint in found if complaint is not None]


async def _ensure(documents: RawCollection, index: Index, outcome: str) -> str | None:
    try:
        await build(documents, index)
    except OperationFailure as error:
        remedy = f"{shell_name(documents.name)}.dropIndex({dict(index.keys)})".replace("'", '"')
        return (
            f"{outcome}, since {documents.full_name} has no index {index.name!r} such as ours: {describe(error)}; if "
            f"there is another on the same fields, drop it and restart the worker: {remedy}"
        )
    return None
