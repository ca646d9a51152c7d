"""What is known of a mapping's collection in MongoDB, and whether documents can be kept in it as it is.

Nothing here asks MongoDB; `gears.in_mongo.collection.inspect` does. What isn't known, since the server has no such
command or the user may not use it, is taken to be well: the first commit tells.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any, Self

from gears.contract.mapping import Mapping

Document = dict[str, Any]
Keys = tuple[tuple[str, Any], ...]
"""Fields of an index or a shard key, each with its direction or `hashed`."""

SIMPLE: Document = {"locale": "simple"}
"""The collation that compares bytes."""

_NOT_OPTIONS = frozenset({"ns", "background"})
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Index:
    """An index, as `listIndexes` has it.

    Attributes:
        spec: what `createIndexes` takes to make the same.
    """

    spec: Document

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.spec.get("name", ""))

    @property
    def keys(self) -> Keys:
        """Its fields."""
        return tuple(self.spec.get("key", {}).items())

    @property
    def unique(self) -> bool:
        """Whether it is unique."""
        return bool(self.spec.get("unique"))

    @property
    def partial(self) -> bool:
        """Whether it leaves documents out by a filter."""
        return "partialFilterExpression" in self.spec

    @property
    def collation(self) -> str | None:
        """The locale by which it compares text; None where it compares bytes."""
        return _locale(self.spec)

    def keeps_ids_apart(self, mapping: Mapping) -> bool:
        """Whether no two documents can have the same id, and no two ids are taken for one.

        A sparse index does: it leaves out only documents without the id, which belong to no key; each of ours has it.
        It also finds all that we look for, since every query names the id. Collations are about text alone.
        """
        return (
            self.unique
            and not self.partial
            and is_on(self.keys, mapping.id_field)
            and not (self.collation and mapping.id_type_name == "str")
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """What is known of a collection; one that doesn't exist yet is like an empty one.

    Attributes:
        kind: `collection`, `view` or `timeseries`; None where that isn't known.
        view_on: what a view shows.
        capped: whether MongoDB drops the oldest documents.
        collation: the locale of its default collation; None for none.
        validator: what documents must satisfy.
        validation: the validator's level and action, where they are not the usual ones.
        indexes: its indexes; None where they aren't known.
        shard_key: by what it is sharded; None where it isn't, or that isn't known.
        unknown: why a part isn't known, by the part.
    """

    kind: str | None = None
    view_on: str | None = None
    capped: bool = False
    collation: str | None = None
    validator: Document | None = None
    validation: tuple[str, str] = ("strict", "error")
    indexes: Sequence[Index] | None = None
    shard_key: Keys | None = None
    unknown: Dict[str, str] | None = None

    @classmethod
    def parse(
        cls,
        listed: Document | None,
        indexes: Iterable[Document] | None,
        sharding: Document | None,
        unknown: Dict[str, str] | None = None,
    ) -> Self:
        """From what a server says.

        Args:
            listed: its document in `listCollections`, empty where the collection doesn't exist; None if not known.
            indexes: its documents in `listIndexes`; None if not known.
            sharding: its document in `config.collections`; None if there is none, or not known.
            unknown: why a part isn't known, by the part.
        """
        options: Document = (listed or {}).get("options") or {}
        found = None if indexes is None else parse_indexes(indexes)
        kind = None if listed is None else str(listed.get("type", "collection"))
        return cls(
            kind="timeseries" if "timeseries" in options else kind,
            view_on=options.get("viewOn"),
            capped=bool(options.get("capped")),
            collation=_locale(options) or default_collation(found),
            validator=options.get("validator") or None,
            validation=(options.get("validationLevel", "strict"), options.get("validationAction", "error")),
            indexes=found,
            shard_key=_shard_key(sharding or {}),
            unknown=unknown,
        )

    def users_unique_indexes(self, mapping: Mapping) -> list[Index]:
        """The unique indexes that may refuse documents: all but those that are there for the id, or for `_id`."""
        return [
            index
            for index in self.indexes or ()
            if index.unique and not index.keeps_ids_apart(mapping) and not is_on(index.keys, "_id")
        ]

    def validated_fields(self) -> list[str]:
        """The fields that the validator speaks of."""
        return sorted(set(_fields(self.validator or {})))


def parse_indexes(listed: Iterable[Document]) -> tuple[Index, ...]:
    """From the documents of `listIndexes`."""
    return tuple(Index({k: v for k, v in spec.items() if k not in _NOT_OPTIONS}) for spec in listed)


def default_collation(indexes: Iterable[Index] | None) -> str | None:
    """The locale of the collection's default collation, as far as its index on `_id` tells; it can't have another."""
    return next((index.collation for index in indexes or () if index.keys == (("_id", 1),)), None)


def unfit(collection: Collection, mapping: Mapping) -> str | None:
    """Why documents can't be kept in this collection, with the remedy; None if they can be."""
    shell, name = shell_name(mapping.collection), mapping.namespace
    copy = f'copy its documents into an ordinary collection, and map that: {shell}.aggregate([{{$out: "copy"}}])'
    if collection.kind == "view":
        return (
            f"{name} is a view, which nobody can write to; map what it shows: {mapping.database}.{collection.view_on}"
        )
    if collection.kind == "timeseries":
        return f"{name} is a time series, whose documents can't be replaced; {copy}"
    if collection.capped:
        return f"{name} is capped: MongoDB drops its oldest documents; {copy}"
    if collection.shard_key is not None and not _is_sharded_by(collection.shard_key, mapping.id_field):
        key = json.dumps({mapping.id_field: "hashed"})
        return (
            f"{name} is sharded by {written(collection.shard_key)}, so that MongoDB can't tell by a document's "
            f"{mapping.id_field!r} alone where it is; shard it by that (MongoDB 5.0 or later): "
            f"sh.reshardCollection({json.dumps(name)}, {key})"
        )
    if collection.collation and mapping.id_field == "_id" and mapping.id_type_name == "str":
        return (
            f"{name} has the default collation {collection.collation!r}, and so has its index on _id, which takes "
            f"different ids for one; {copy}"
        )
    return None


def sharding_rule(collection: Collection, mapping: Mapping) -> str | None:
    """Which unique indexes a sharded collection can have beside those on the id and on `_id`; None if it isn't sharded.

    See <https://www.mongodb.com/docs/manual/core/index-unique/>.
    """
    if collection.shard_key is None:
        return None
    by = written(collection.shard_key)
    return f"sharded by {by}, so that unique indexes of yours must begin with {mapping.id_field!r}"


def shell_name(collection: str) -> str:
    """A collection as mongosh calls it."""
    return f"db.{collection}" if _PLAIN_NAME.fullmatch(collection) else f"db.getCollection({json.dumps(collection)})"


def is_on(keys: Keys, field: str) -> bool:
    """Whether these are the keys of an ordinary index on this field alone."""
    return len(keys) == 1 and keys[0][0] == field and isinstance(keys[0][1], int | float)


def _is_sharded_by(keys: Keys, field: str) -> bool:
    """Whether this field alone tells where a document is; a unique index on it is possible then, hashed or not.

    See `ShardKeyPattern::isIndexUniquenessCompatible` in <https://github.com/mongodb/mongo>.
    """
    return [name for name, _ in keys] == [field]


def _shard_key(sharding: Document) -> Keys | None:
    if not sharding.get("key") or sharding.get("dropped") or sharding.get("unsplittable"):
        return None  # the last are whole on one shard, though they are listed: MongoDB 8.0
    return tuple(sharding["key"].items())


def _locale(options: Document) -> str | None:
    locale = (options.get("collation") or {}).get("locale", SIMPLE["locale"])
    return None if locale == SIMPLE["locale"] else str(locale)


def written(keys: Keys) -> str:
    """Keys of an index as people write them."""
    return json.dumps(dict(keys))


def _fields(rule: Any) -> Iterator[str]:
    """The fields at the top of documents that a validator names."""
    for name, value in rule.items() if isinstance(rule, dict) else ():
        if name == "$jsonSchema" and isinstance(value, dict):
            yield from value.get("required") or ()
            yield from value.get("properties") or ()
        elif name in ("$and", "$or", "$nor"):
            for each in value:
                yield from _fields(each)
        elif not name.startswith("$"):
            yield name.partition(".")[0]
