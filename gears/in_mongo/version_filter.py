"""Which documents of a mapping's collection an operation is for: by id, and by version."""

from collections.abc import Iterable
from typing import Any

from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, ReplaceOne, UpdateOne
from pymongo.collation import Collation

from gears.contract.changes import Change, Remove
from gears.contract.mapping import Mapping
from gears.contract.version import foreign
from gears.in_mongo.collection.fitness import SIMPLE

Document = dict[str, Any]


class Filters:
    """Filters and operations for one mapping.

    Args:
        mapping: names the id field and the id's type.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self.collation: Collation | None = None
        """What strings are compared by, byte by byte, where the collection would do otherwise by itself."""

    def compare_bytes(self, *, overruling: str | None) -> None:
        """Compare strings byte by byte, where this is the locale of the collection's own collation; None for none."""
        self.collation = Collation(**SIMPLE) if overruling else None

    def values(self, ids: Iterable[str]) -> list[Any]:
        """What these ids are in MongoDB."""
        return [self._mapping.id_type.parse(document_id) for document_id in ids]

    def with_id(self, document_id: str) -> Document:
        """The document with this id."""
        id_field, value = self._mapping.id_field, self._mapping.id_type.parse(document_id)
        if id_field == "_id":
            return {"_id": value}
        return {id_field: value, f"{id_field}.0": {"$exists": False}}  # nor an array that holds it

    def older(self, change: Change) -> Document:
        """The document that this change is for, if it is in an older state."""
        newer = {"$gte": Int64(change.version), "$lt": Int64(foreign(change.version))}
        return {
            **self.with_id(change.document_id),
            "_sync.v": {"$not": newer | {"$type": ["long", "int"]}},  # what is foreign, or of another type, isn't ours
        }

    def exactly(self, document_id: str, version: int) -> Document:
        """The document with this id in this very state."""
        return self.with_id(document_id) | {"_sync.v": Int64(version)}

    def all_exactly(self, ids: Iterable[str], version: int) -> Document:
        """Those of these documents that are in a state with this version."""
        id_field = self._mapping.id_field
        these: Document = {id_field: {"$in": self.values(ids)}, "_sync.v": Int64(version)}
        return these if id_field == "_id" else these | {f"{id_field}.0": {"$exists": False}}

    def operation(self, change: Change, document: bytes | None = None) -> Any:
        """The write that makes this change.

        Args:
            change: the change.
            document: what MongoDB is to hold, if it isn't what an `Upsert` says.
        """
        older = self.older(change)
        if isinstance(change, Remove):
            return DeleteOne(older, collation=self.collation)
        raw = RawBSONDocument(change.document if document is None else document)
        return ReplaceOne(older, raw, upsert=True, collation=self.collation)

    def raised(self, mine: Document, version: int) -> UpdateOne:
        """The write that gives this version to the document that a filter finds."""
        return UpdateOne(mine, {"$set": {"_sync.v": Int64(version)}}, collation=self.collation)
