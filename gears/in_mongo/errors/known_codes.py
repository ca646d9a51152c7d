"""What is known of MongoDB's error codes: the table that `gears.in_mongo.errors.what_errors_mean` decides by."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass

from gears.in_mongo.errors.code_names import NAMES


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a code.

    Attributes:
        reason: what is wrong, as the reader of a log needs it.
        source: where that is written.
        remedy: what mends it, if that can be said.
    """

    reason: str
    source: str
    remedy: str | None = None


_STORAGE = "mongo: src/mongo/db/update/storage_validation.cpp"
_UPDATE = "mongo: src/mongo/db/exec/update_stage.cpp"
_UPSERT = "mongo: src/mongo/db/exec/upsert_stage.cpp"
_KEYS = "mongo: src/mongo/db/index/expression_keys_private.cpp"
_HASH = "mongo: src/mongo/db/geo/hash.cpp"
_TEXT = "mongo: src/mongo/db/fts/fts_index_format.cpp"
_LANGUAGE = "mongo: src/mongo/db/fts/fts_spec.cpp"
_LIMITS = "manual: reference/limits"
_CODES = "mongo: src/mongo/base/error_codes.yml"

DOCUMENT: Dict[int, Known] = {
    15: Known("the document is nested too deep", _STORAGE),
    52: Known("a field name starts with '$'", _STORAGE),
    53: Known("its _id is an array or a regular expression", _STORAGE),
    54: Known("a field of the shard key is an array", _UPDATE),
    55: Known("$ref, $id and $db are not those of a reference", _STORAGE + ", up to 4.4"),
    57: Known("a field name contains a dot", "mongo: src/mongo/db/ops/update.cpp, up to 3.4"),
    66: Known("its _id, or a field of the shard key, can't be changed", _UPDATE),
    121: Known("the collection's validator refuses it", _CODES),
    171: Known("two fields of one index are arrays", "mongo: src/mongo/db/index/btree_key_generator.cpp"),
    201: Known("a value can't be a key of an index", _TEXT + ", s2_key_generator.cpp; documentdb: key too large"),
    10334: Known("the document is too large", _LIMITS),
    13026: Known("a position is not of numbers, as its 2d index asks", _HASH),
    13027: Known("a position is outside the bounds of its 2d index", _HASH),
    13067: Known("a position is empty, and has a 2d index", _HASH),
    13068: Known("a position has one coordinate only, and a 2d index", _HASH),
    13334: Known("its shard key is too large", _CODES + ", up to 4.2"),
    16732: Known("it has too many words for a text index", _TEXT),
    16733: Known("it has too many words for a text index", _TEXT),
    16755: Known("a value is no geometry that its 2dsphere index can hold", _KEYS),
    16756: Known("a value is no geometry that its 2dsphere index can hold", _KEYS),
    16766: Known("a field with a hashed index is an array", _KEYS),
    16775: Known("a position is no pair, as its haystack index asks", _KEYS + ", up to 4.4"),
    16776: Known("a position is not of numbers, as its haystack index asks", _KEYS + ", up to 4.4"),
    16804: Known("a position is not of numbers, as its 2d index asks", _KEYS),
    17261: Known("the field that names its language for a text index is no string", _LANGUAGE),
    17262: Known("the field that names its language for a text index names none that is known", _LANGUAGE),
    17280: Known("a value is too long for its index", _LIMITS + ", up to 4.0"),
    17419: Known("the document is too large", _UPDATE),
    17420: Known("the document is too large", _UPSERT),
}
"""No server will ever store this document, whatever else changes.

None of these can come from our filters, or from what we set beside the document: that is the same for all documents.
"""

DUPLICATE: Dict[int, Known] = {
    11000: Known("another document has the same value", _CODES),
    11001: Known("another document has the same value", "pymongo: helpers_shared.py; of updates, up to 2.4"),
    12582: Known("another document has the same value", "pymongo: helpers_shared.py; of mongos, up to 2.4"),
}
"""Another document has this value of a unique index."""

_ROLES = "grant its user the role again: writethrough access mongo --apply"
_COPY = "copy the documents into an ordinary collection, and map that"
_SERVER = "use a server that has it"
_INDEX = "drop the index that is in its way"
_REPLICAS = "run the server as a replica set"

INDEX_IN_THE_WAY: Dict[int, Known] = {
    68: Known("there is another index of this name", "manual: reference/command/createIndexes", _INDEX),
    85: Known("there is such an index with other options", "manual: reference/command/createIndexes", _INDEX),
    86: Known("there is another index of this name", "manual: reference/command/createIndexes", _INDEX),
}
"""Of an index: there is another one in its place."""

SET_UP: Dict[int, Known] = {
    13: Known("the user may not do this", "manual: core/authorization", _ROLES),
    18: Known("user or password is wrong", "manual: core/authentication", "correct the user, password and authSource"),
    51: Known("a person must look", _CODES, "see the server's log"),
    59: Known("the server doesn't know a command", _CODES, _SERVER),
    61: Known(
        "sharded by another key than the id", "manual: core/sharding-shard-key", "shard the collection by the id"
    ),
    67: Known("the index can't be built", "manual: reference/command/createIndexes"),
    69: Known("the users are those of another version", _CODES, "finish the server's upgrade"),
    72: Known("an option is not allowed here", _CODES),
    73: Known("the name is none for a collection", _LIMITS, "name another database or collection in MAPPINGS"),
    76: Known("the server is no replica set", _CODES, _REPLICAS),
    79: Known("the write concern is not known", "manual: reference/write-concern", "see the replica set's settings"),
    93: Known("the replica set's configuration is invalid", _CODES, "correct it: rs.conf(), rs.reconfig()"),
    94: Known("the replica set isn't initiated", "manual: reference/method/rs.initiate", "initiate it: rs.initiate()"),
    100: Known(
        "too few members hold data for a majority", "manual: reference/write-concern", "add members that hold data"
    ),
    115: Known("the server doesn't support a command", _CODES, _SERVER),
    116: Known("the collection is capped", "manual: core/capped-collections", _COPY),
    123: Known("the server is no replica set", _CODES, _REPLICAS),
    140: Known("the server's TLS settings are wrong", _CODES, "correct them, or the URI's"),
    141: Known("TLS could not be agreed on", _CODES, "correct the server's TLS settings, or the URI's"),
    148: Known("the server has no read concern majority", "manual: reference/read-concern-majority", "enable it"),
    166: Known("the collection is a view", "manual: core/views", "map the collection that it is a view of"),
    167: Known("the collection is a view", "manual: core/views", "map the collection that it is a view of"),
    197: Known("the server doesn't know an option of an index", _CODES, _SERVER),
    214: Known(
        "the user may not come from here",
        "manual: core/authentication",
        "see authenticationRestrictions of the user",
    ),
    238: Known("the server doesn't have this", _CODES, _SERVER),
    264: Known("the server has too many files open", "manual: reference/ulimit", "raise its limit of open files"),
    301: Known("the server found its data corrupt", _CODES, "resync or restore that member"),
    334: Known("the server doesn't have this way to authenticate", _CODES, "name another authMechanism in the URI"),
    371: Known("writes by users are blocked", "manual: reference/command/setUserWriteBlockMode", "end the block"),
    411: Known(
        "a query setting rejects our query", "manual: reference/command/setQuerySettings", "remove that setting"
    ),
    8000: Known("Atlas refuses", "atlas: reference/faq/storage", "free space, or take a larger tier"),
    10003: Known("the collection is capped", "manual: core/capped-collections", _COPY),
    13297: Known("a database differs in case only", _CODES, "write it as it is in MAPPINGS"),
    14031: Known("the server's disk is full", _CODES, "free disk space"),
}
"""Rights, space, options, indexes: a person must mend it."""

KNOWN: Dict[int, Known] = {**DOCUMENT, **DUPLICATE, **INDEX_IN_THE_WAY, **SET_UP}
"""The codes of which something is said beside their name."""

NO_USER, NO_COLLECTION, CURSOR_GONE = frozenset({11, 31}), frozenset({26}), frozenset({43})
"""Codes that say that there is none, or none any more: of users and roles, collections, cursors."""

UNREADABLE = frozenset({2, 5, 9, 14, 15, 22, 52, 54, 55, 56, 57, 10334, 17280, 17419})
"""Codes with which servers answer a whole command when they can't read a document in it, such as BadValue, Overflow,
FailedToParse, TypeMismatch, InvalidBSON and BSONObjectTooLarge: https://github.com/mongodb/mongo, `error_codes.yml`."""


def name_of(code: int) -> str:
    """The code's name, as servers say it of those that have none, too."""
    return NAMES.get(code, f"Location{code}")


def reason_of(code: int) -> str | None:
    """What is wrong, in words; None where the name must do."""
    known = KNOWN.get(code)
    return None if known is None else known.reason


def remedy_of(code: int) -> str | None:
    """What a person does about it; None where nobody can say."""
    known = KNOWN.get(code)
    return None if known is None else known.remedy
