"""Which documents are in the way of one that a unique index refuses: the queries that find them, by the index."""

import operator
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo.collation import Collation

Document = dict[str, Any]

_COLLATION = frozenset(
    {
        "locale",
        "caseLevel",
        "caseFirst",
        "strength",
        "numericOrdering",
        "alternate",
        "maxVariable",
        "backwards",
        "normalization",
    }
)


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index of a collection.

    Args:
        name: its name.
        fields: the paths of the fields that together must be unique.
        only: the documents that it holds, as a filter; empty for all.
        sparse: whether it holds only documents that have one of its fields.
        collation: how it compares strings; None for byte by byte.
    """

    name: str
    fields: tuple[str, ...]
    only: Document
    sparse: bool
    collation: Collation | None

    @classmethod
    def parse(cls, found: Dict[str, Any]) -> Self | None:
        """The index that `listIndexes` describes; None for one that isn't unique."""
        fields = tuple(found["key"])
        if not found.get("unique") and fields != ("_id",):
            return None
        options = {name: value for name, value in (found.get("collation") or {}).items() if name in _COLLATION}
        collation = Collation(**options) if options.get("locale", "simple") != "simple" else None
        only = dict(found.get("partialFilterExpression") or {})
        return cls(str(found["name"]), fields, only, bool(found.get("sparse")), collation)

    def others(self, document: Dict[str, Any]) -> Document | None:
        """A filter for the documents that have the same key as this one in the index, itself included.

        A document has several keys if a field is an array; a field that is missing counts as null. None when the
        document isn't in the index. See https://www.mongodb.com/docs/manual/core/index-unique/.
        """
        keys = [list(_values(document, field.split("."))) for field in self.fields]
        if (self.sparse and not any(keys)) or not _fits(document, self.only):
            return None
        same = [_one_of(field, found) for field, found in zip(self.fields, keys, strict=True)]
        if self.only:
            same.append(self.only)
        if self.sparse:
            same.append({"$or": [{field: {"$exists": True}} for field in self.fields]})
        return {"$and": same}


_TYPES: dict[str | int, tuple[type, ...]] = {
    "string": (str,),
    2: (str,),
    "number": (int, float, Decimal128),
    "double": (float,),
    "object": (dict,),
    "bool": (bool,),
    "date": (datetime, DatetimeMS),
    "objectId": (ObjectId,),
}
_ORDERS = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def _fits(document: Dict[str, Any], only: Dict[str, Any]) -> bool:
    """Whether a document may be in a partial index: yes where this doesn't know what its filter says.

    See https://www.mongodb.com/docs/manual/core/index-partial/ for what may be in such a filter.
    """
    for name, wanted in only.items():
        if name == "$and":
            fits = all(_fits(document, each) for each in wanted)
        elif name == "$or":
            fits = any(_fits(document, each) for each in wanted)
        else:
            values = list(_values(document, name.split(".")))
            asked = wanted if isinstance(wanted, Dict) and any(n.startswith("$") for n in wanted) else {"$eq": wanted}
            fits = all(_is_as_asked(values, name, argument) for name, argument in asked.items())
        if not fits:
            return False
    return True


def _is_as_asked(values: Sequence[Any], name: str, argument: Any) -> bool:
    match name:
        case "$exists":
            return bool(values) == bool(argument)
        case "$eq":
            return argument in values or (argument is None and not values)
        case "$in":
            return any(_is_as_asked(values, "$eq", each) for each in argument)
        case "$type" if argument in _TYPES:
            kinds = _TYPES[argument]
            return any(
                isinstance(value, kinds) and (kinds == (bool,) or not isinstance(value, bool)) for value in values
            )
        case "$gt" | "$gte" | "$lt" | "$lte":
            return any(_compares(_ORDERS[name], value, argument) for value in values)
        case _:
            return True


def _compares(order: Callable[[Any, Any], bool], value: Any, argument: Any) -> bool:
    if isinstance(value, bool) != isinstance(argument, bool):
        return False
    try:
        return bool(order(value, argument))
    except TypeError:
        return type(value) is type(argument)  # nobody knows


def _one_of(field: str, values: Sequence[Any]) -> Document:
    if not values:
        return {field: None}
    return {"$or": [{field: {"$eq": value}} for value in values]}


def _values(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """What the index holds of this path: each element of an array, and what the path leads to in each element."""
    if isinstance(value, list):
        if path and path[0].isdigit() and int(path[0]) < len(value):
            yield from _values(value[int(path[0])], path[1:])
        for element in value:
            if not path:
                yield element
            elif isinstance(element, Dict):
                yield from _values(element, path)
        if not path and not value:
            yield value
    elif not path:
        yield value
    elif isinstance(value, Dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])
