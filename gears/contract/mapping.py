"""Which keys go where: a key prefix in Redis, a collection and an id field in MongoDB."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from gears.documents.id_types import ID_TYPES, IdType
from gears.errors import ConfigError, Refused

_PREFIX = re.compile(r":?[A-Za-z0-9_][A-Za-z0-9_.:-]*")
"""Nothing that means more than itself in the patterns of Redis's SCAN, PSUBSCRIBE and ACL rules."""

_SYNTAX = re.compile(
    r"(?P<prefix>[^=]+)=(?P<db>[^.:]+)\.(?P<collection>[^:]+):(?P<id>[^:/]+)"
    r"(?:/(?P<type>[^:]*))?(?::(?P<model>[\w.]+))?"
)
_RESERVED = frozenset({"_id", "_sync"})
_OWN_PATHS = frozenset({"healthz", "readyz", "metrics", "sync", "openapi.json", "docs"})


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys `prefix:<id>` are kept in `database.collection`, identified there by `id_field`.

    Args:
        prefix: key prefix in Redis and resource name in the API, without the colon.
        database: MongoDB database.
        collection: MongoDB collection.
        id_field: the document's field that holds the id, under a unique index; it may be `_id`.
        id_type_name: the type of the ids: `str`, `int`, `oid` or `uuid`.
        model: import path of a pydantic model that documents must satisfy; None for any JSON object.
        hold: how long, in seconds, a plain client's reply is kept until its write is committed, where the engine can
            do that; 0 for not at all.
    """

    prefix: str
    database: str
    collection: str
    id_field: str = "id"
    model: str | None = None
    hold: float = 0.0
    id_type_name: str = "str"

    @property
    def id_type(self) -> IdType:
        """The type of the ids."""
        return ID_TYPES[self.id_type_name]

    @property
    def reserved(self) -> frozenset[str]:
        """Names that no field of a document may have."""
        return _RESERVED - {self.id_field}

    def key(self, document_id: str) -> str:
        """The Redis key of the document with this id."""
        return f"{self.prefix}:{document_id}"

    def id_of(self, key: bytes) -> str:
        """The id of a Redis key, as text: all that follows `prefix:`.

        Raises:
            Refused: the key is no UTF-8, or no document of this mapping can have this id.
        """
        raw = key[len(self.prefix) + 1 :]
        try:
            document_id = raw.decode()
        except UnicodeDecodeError:
            raise Refused(f"the key {key[:200]!r} is not UTF-8, so its id can't be a string in MongoDB") from None
        self.id_type.parse(document_id)
        return document_id

    @property
    def namespace(self) -> str:
        """`database.collection`, as MongoDB's tools write it."""
        return f"{self.database}.{self.collection}"


def parse_mappings(text: str) -> tuple[Mapping, ...]:
    """Parse `MAPPINGS`: `prefix=database.collection:id_field[/str|int|oid|uuid][:package.Model]`, comma separated.

    Raises:
        ConfigError: a part can't be parsed, a name is reserved, or two mappings overlap.
    """
    return check_mappings(_parse_mapping(part.strip()) for part in text.split(",") if part.strip())


def check_mappings(mappings: Iterable[Mapping]) -> tuple[Mapping, ...]:
    """These, as far as they go together.

    Raises:
        ConfigError: there is none, or two overlap.
    """
    mappings = tuple(mappings)
    if not mappings:
        raise ConfigError("MAPPINGS is empty; give at least one, such as todos=test.todos:id")
    for one, other in permutations(mappings, 2):
        if one is not other and f"{one.prefix}:".startswith(f"{other.prefix}:"):
            raise ConfigError(f"MAPPINGS: keys of {one.prefix!r} would belong to {other.prefix!r} too; rename one")
        if one.namespace == other.namespace:
            raise ConfigError(f"MAPPINGS: {one.prefix!r} and {other.prefix!r} share {one.namespace}; give each its own")
    return mappings


def _parse_mapping(text: str) -> Mapping:
    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"MAPPINGS: {text!r} is not of the form prefix=database.collection:id_field[/type][:package.Model]"
        )
    id_type = "str" if match["type"] is None else match["type"].strip()
    prefix, database, collection, id_field = (match[name].strip() for name in ("prefix", "db", "collection", "id"))
    return make_mapping(prefix, database, collection, id_field, id_type=id_type, model=match["model"])


def make_mapping(
    prefix: str, database: str, collection: str, id_field: str, *, id_type: str, model: str | None
) -> Mapping:
    """A mapping of these; see `Mapping`.

    Raises:
        ConfigError: a name can't be used, or is reserved.
    """
    if id_type not in ID_TYPES:
        raise ConfigError(f"MAPPINGS: {id_type!r} is no type of ids for {prefix!r}; use one of {', '.join(ID_TYPES)}")
    if not _PREFIX.fullmatch(prefix) or prefix.endswith(":"):
        raise ConfigError(f"MAPPINGS: the prefix {prefix!r} may hold letters, digits and _ . : - only")
    if prefix in _OWN_PATHS or prefix.split(":")[0] == "sync":
        raise ConfigError(f"MAPPINGS: the prefix {prefix!r} is used by the service itself; choose another")
    if id_field == "_sync" or id_field.startswith("$") or "." in id_field:
        raise ConfigError(f"MAPPINGS: {id_field!r} can't be the id field of {prefix!r}; use a plain name such as id")
    if collection.startswith(("sync_", "system.")):
        raise ConfigError(f"MAPPINGS: the collection {collection!r} is reserved; choose another")
    return Mapping(prefix, database, collection, id_field, model, id_type_name=id_type)
