"""Which documents are in the way of those that a unique index refuses: the queries that find them, by the index."""

import operator
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import nan
from typing import Any, Self

import bson
from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo.collation import Collation

Document = dict[str, Any]

Keys = tuple[dict[Hashable, Any], ...]
"""For each field of an index, the values that it has of a document, by what is equal for those that are."""

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

    def needs(self, document: Dict[str, Any]) -> Keys | None:
        """What a document must have for itself; None when it isn't in this index.

        It has several keys if a field is an array; a field that is missing counts as null.
        See https://www.mongodb.com/docs/manual/core/index-unique/.
        """
        found = [list(_values(document, field.split("."))) for field in self.fields]
        if (self.sparse and not any(found)) or not _fits(document, self.only):
            return None
        return tuple(map(_keyed, found))

    def holds(self, document: Dict[str, Any]) -> Keys:
        """What a document that is in this index keeps from others: arrays as such, too, as queries have it."""
        return tuple(_keyed(list(_values(document, field.split("."), whole=True))) for field in self.fields)

    def holders(self, wanted: Collection[Keys]) -> Document:
        """A filter for the documents that have some of these keys, be it by the index's collation."""
        alike: Document = {}
        for n, field in enumerate(self.fields):
            alike[field] = _one_of({same: value for keys in wanted for same, value in keys[n].items()})
        more = [self.only] if self.only else []
        if self.sparse and any(None in field["$in"] for field in alike.values()):
            more.append({"$or": [{field: {"$exists": True}} for field in self.fields]})
        if sum(len(field["$in"]) > 1 for field in alike.values()) > 1:
            each = [{f: _one_of(found) for f, found in zip(self.fields, keys, strict=True)} for keys in wanted]
            more.append({"$or": each})
        return alike | ({"$and": more} if more else {})


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


def _one_of(values: Dict[Hashable, Any]) -> Document:
    return {"$in": list(values.values())}


def _keyed(values: Sequence[Any]) -> dict[Hashable, Any]:
    return {_comparable(value): value for value in values or [None]}


def meet(needed: Keys, held: Keys) -> bool:
    """Whether a document that holds this is in the way of one that needs that; strings are compared byte by byte."""
    return not any(mine.keys().isdisjoint(others) for mine, others in zip(needed, held, strict=True))


def _comparable(value: Any) -> Hashable:
    """What is equal for values that are one to MongoDB."""
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        value = nan if number.is_nan() else number
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "number", "NaN" if value != value else value
    if isinstance(value, dict):
        return "object", tuple((name, _comparable(each)) for name, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_comparable, value))
    return bson.encode({"": value})


def _values(value: Any, path: Sequence[str], *, whole: bool = False) -> Iterator[Any]:
    """What the index holds of this path: each element of an array, and what the path leads to in each element.

    Args:
        value: where the path begins.
        path: names of fields.
        whole: whether arrays that it leads to count as well.
    """
    if isinstance(value, list):
        if path and path[0].isdigit() and int(path[0]) < len(value):
            yield from _values(value[int(path[0])], path[1:], whole=whole)
        for element in value:
            if not path:
                yield element
            elif isinstance(element, Dict):
                yield from _values(element, path, whole=whole)
        if not path and (whole or not value):
            yield value
    elif not path:
        yield value
    elif isinstance(value, Dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:], whole=whole)
