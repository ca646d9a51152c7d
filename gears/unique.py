"""One document an id: the unique index, and what to do about documents that share one."""

from typing import Any

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DeleteOne
from pymongo.errors import DuplicateKeyError, OperationFailure

from gears.documents.stored import version_in
from gears.errors import DuplicateIds
from gears.mapping import Mapping

DUPLICATE_KEY = 11000
"""MongoDB's code for it."""

_AT_ONCE = 100
_SHOWN = 5

_Documents = AsyncIOMotorCollection[dict[str, Any]]


async def ensure_unique(documents: _Documents, mapping: Mapping) -> None:
    """Ensure the unique index on the id; of a document stored twice while it was missing, the newest state stays.

    Args:
        documents: the mapping's collection.
        mapping: names the id field.

    Raises:
        DuplicateIds: documents that others stored share an id, so that the index can't be built.
        MongoError: anything else.
    """
    while mapping.id_field != "_id":  # which is unique in any case
        try:
            await documents.create_index(mapping.id_field, unique=True)
        except (DuplicateKeyError, OperationFailure) as error:
            if error.code != DUPLICATE_KEY:
                raise
            if not await _delete_older_states(documents, mapping):
                raise DuplicateIds(await _describe(documents, mapping)) from error
        else:
            return


async def _delete_older_states(documents: _Documents, mapping: Mapping) -> bool:
    """Delete all but the newest of documents that share an id and are all ours; returns whether there were any."""
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": f"${mapping.id_field}", "states": {"$push": {"_id": "$_id", "_sync": "$_sync"}}}},
        {"$match": {"states.1": {"$exists": True}}},
        {"$limit": _AT_ONCE},
    ]
    groups = await documents.aggregate(pipeline, allowDiskUse=True).to_list(_AT_ONCE)
    older = [
        DeleteOne({"_id": state["_id"], "_sync.v": Int64(_version_of(state))})
        for group in groups
        if all(map(_version_of, group["states"]))
        for state in sorted(group["states"], key=_version_of)[:-1]
    ]
    if older:
        await documents.bulk_write(older, ordered=False)
    return bool(older)


def _version_of(state: dict[str, Any]) -> int:
    return version_in(state.get("_sync"))


async def _describe(documents: _Documents, mapping: Mapping) -> str:
    id_field = mapping.id_field
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": f"${id_field}", "n": {"$sum": 1}}},
        {"$match": {"n": {"$gt": 1}}},
        {"$sort": {"_id": 1}},
        {"$limit": _SHOWN + 1},
    ]
    found = await documents.aggregate(pipeline, allowDiskUse=True).to_list(_SHOWN + 1)
    examples = ", ".join(f"{group['_id']!r} ({group['n']} documents)" for group in found[:_SHOWN])
    more = ", and more" if len(found) > _SHOWN else ""
    return (
        f"documents of {mapping.namespace} share a value of {id_field!r}, which must be unique: "
        f"{examples}{more}; delete or rename all but one of each"
    )
