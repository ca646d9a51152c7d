"""The unique index on the id that a mapping's collection needs, and what keeps it from being made.

Nothing here asks MongoDB.
"""

import json
from collections.abc import Iterable

from gears.contract.mapping import Mapping
from gears.in_mongo.collection.fitness import SIMPLE, Collection, Index, default_collation, is_on, shell_name, written


def wanted_index(mapping: Mapping, indexes: Iterable[Index] | None) -> Index:
    """The unique index on the id that is made where no other does its job.

    Args:
        mapping: names the id field.
        indexes: those there are, as far as is known: they tell whether the collection has a default collation, which
            the index must not have.
    """
    spec = {"key": {mapping.id_field: 1}, "name": f"{mapping.id_field}_1", "unique": True}
    return Index(spec | ({"collation": SIMPLE} if default_collation(indexes) else {}))


def in_the_way(collection: Collection, mapping: Mapping) -> str:
    """What keeps the wanted index from being made, with the remedy."""
    wanted, shell = wanted_index(mapping, None), shell_name(mapping.collection)
    others = [index for index in collection.indexes or () if not index.keeps_ids_apart(mapping)]
    found = [index for index in others if index.name == wanted.name]
    found += [index for index in others if index.keys == wanted.keys and index not in found]
    if not found:
        return (
            f"an index of {mapping.namespace} keeps the unique index on {mapping.id_field!r} from being built; "
            f"look for one of the same name, {wanted.name!r}, or the same field, and drop it: {shell}.getIndexes()"
        )
    index = found[0]
    fault, remedy = _fault(index, mapping), f"{shell}.dropIndex({json.dumps(index.name)})"
    if not index.unique and not index.partial and index.keys == collection.shard_key:  # which can't be dropped
        name = json.dumps({"name": index.name})[:-1]
        collection_name = json.dumps(mapping.collection)
        remedy = "; ".join(
            f"db.runCommand({{collMod: {collection_name}, index: {name}, {option}: true}}}})"
            for option in ('"prepareUnique"', '"unique"')
        )
    return (
        f"the index {index.name!r} of {mapping.namespace} {fault}, and keeps the unique index on "
        f"{mapping.id_field!r} from being built; mend it: {remedy}"
    )


def _fault(index: Index, mapping: Mapping) -> str:
    if not is_on(index.keys, mapping.id_field):
        return f"is on {written(index.keys)}"
    if not index.unique:
        return "isn't unique"
    if index.partial:
        return "is partial, so that it is not about all documents"
    return f"has the collation {index.collation!r}, which takes different ids for one"
