"""One document an id: the unique index, and what to do about documents that share one."""

from dataclasses import dataclass
from typing import Any

from bson import Int64
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import DeleteOne
from pymongo.errors import OperationFailure

from gears.contract.mapping import Mapping
from gears.contract.mongo_form import version_in
from gears.errors import DuplicateIds, Unfit
from gears.in_mongo.collection.build_index import Say, build, say_nothing, unhurried
from gears.in_mongo.collection.fitness import SIMPLE, default_collation
from gears.in_mongo.collection.inspect import look, look_at_indexes
from gears.in_mongo.collection.wanted_index import in_the_way, wanted_index
from gears.in_mongo.errors.what_errors_mean import Meaning, judge

_AT_ONCE = 100
_SHOWN = 5

_RawCollection = AsyncIOMotorCollection[dict[str, Any]]


async def ensure_unique(documents: _RawCollection, mapping: Mapping, say: Say = say_nothing) -> None:
    """Ensure a unique index on the id; of a document stored twice while it was missing, the newest state stays.

    One that is there and does the job is taken as it is, whatever its name. It is asked for again all the same, since
    servers list indexes that are still being built.

    Args:
        documents: the mapping's collection.
        mapping: names the id field.
        say: told each second while it is built.

    Raises:
        Unfit: another index is in the way.
        DuplicateIds: documents that others stored share an id, so that the index can't be built.
        MongoError: anything else.
    """
    while mapping.id_field != "_id":  # which is unique in any case
        indexes = await look_at_indexes(documents)
        taken = next((index for index in indexes or () if index.keeps_ids_apart(mapping)), None)
        try:
            await build(documents, taken or wanted_index(mapping, indexes), say)
        except OperationFailure as error:
            match judge(error).meaning:
                case Meaning.SET_UP | Meaning.INDEX_IN_THE_WAY if taken is not None:
                    return  # it is there; only the right to make such an index isn't, or another option of it
                case Meaning.INDEX_IN_THE_WAY:
                    raise Unfit(in_the_way(await look(documents), mapping)) from error
                case Meaning.DUPLICATE:
                    grouped = _Grouped(documents, mapping, exactly=bool(default_collation(indexes)), say=say)
                    if not await _delete_older_states(grouped):
                        raise DuplicateIds(await _describe(grouped)) from error
                case _:
                    raise
        else:
            return


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Documents by id, however long it takes.

    Args:
        documents: the mapping's collection.
        mapping: names the id field.
        exactly: whether the collection's default collation, which may take different ids for one, is to be overruled.
        say: told each second while they are read.
    """

    documents: _RawCollection
    mapping: Mapping
    exactly: bool
    say: Say

    async def find(self, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What an aggregation finds."""
        what = f"looking for documents of {self.mapping.namespace} that share a value of {self.mapping.id_field!r}"
        options: dict[str, Any] = {"allowDiskUse": True} | ({"collation": SIMPLE} if self.exactly else {})
        collection = self.documents.delegate
        return await unhurried(lambda: list(collection.aggregate(pipeline, **options)), self.documents, what, self.say)


async def _delete_older_states(grouped: _Grouped) -> bool:
    """Delete all but the newest of documents that share an id and are all ours; returns whether there were any."""
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": f"${grouped.mapping.id_field}", "states": {"$push": {"_id": "$_id", "_sync": "$_sync"}}}},
        {"$match": {"states.1": {"$exists": True}}},
        {"$limit": _AT_ONCE},
    ]
    groups = await grouped.find(pipeline)
    older = [
        DeleteOne({"_id": state["_id"], "_sync.v": Int64(_version_of(state))})
        for group in groups
        if all(map(_version_of, group["states"]))
        for state in sorted(group["states"], key=_version_of)[:-1]
    ]
    if older:
        await grouped.documents.bulk_write(older, ordered=False)
    return bool(older)


def _version_of(state: dict[str, Any]) -> int:
    return version_in(state.get("_sync"))


async def _describe(grouped: _Grouped) -> str:
    mapping, id_field = grouped.mapping, grouped.mapping.id_field
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": f"${id_field}", "n": {"$sum": 1}}},
        {"$match": {"n": {"$gt": 1}}},
        {"$sort": {"_id": 1}},
        {"$limit": _SHOWN + 1},
    ]
    found = await grouped.find(pipeline)
    examples = ", ".join(f"{group['_id']!r} ({group['n']} documents)" for group in found[:_SHOWN])
    more = ", and more" if len(found) > _SHOWN else ""
    return (
        f"documents of {mapping.namespace} share a value of {id_field!r}, which must be unique: "
        f"{examples}{more}; delete or rename all but one of each"
    )
