"""What MongoDB's error codes mean to us: a refusal of the document, something a person must mend, or try again."""

from dataclasses import dataclass
from enum import Enum

from gears.in_mongo.errors.code_names import NAMES


class Meaning(Enum):
    """What is to be done about an error of one item of a bulk write, or of an operation as a whole."""

    DOCUMENT = "document"
    """An upsert is refused: no server will ever store this document, whatever else changes.

    That holds for an item of a bulk write, and for an operation as a whole only if it carries a single document. A
    delete stores nothing, so nothing of it is refused.
    """

    DUPLICATE = "duplicate"
    """Another document has this value of a unique index: which one, and which index, is to be looked up."""

    SET_UP = "set-up"
    """Rights, space, options, indexes: tried again, and said so that a person mends it."""

    RETRY = "retry"
    """Tried again, for ever; so is every code that nobody knows."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a code.

    Attributes:
        meaning: what is to be done.
        reason: what is wrong, as the reader of a log needs it.
        source: where that is written.
        remedy: what mends it, if that can be said.
    """

    meaning: Meaning
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

# None of these can come from our filters, or from what we set beside the document: that is the same for all documents.
_DOCUMENT: dict[int, tuple[str, str]] = {
    15: ("the document is nested too deep", _STORAGE),
    52: ("a field name starts with '$'", _STORAGE),
    53: ("its _id is an array or a regular expression", _STORAGE),
    54: ("a field of the shard key is an array", _UPDATE),
    55: ("$ref, $id and $db are not those of a reference", _STORAGE + ", up to 4.4"),
    57: ("a field name contains a dot", "mongo: src/mongo/db/ops/update.cpp, up to 3.4"),
    66: ("its _id, or a field of the shard key, can't be changed", _UPDATE),
    121: ("the collection's validator refuses it", _CODES),
    171: ("two fields of one index are arrays", "mongo: src/mongo/db/index/btree_key_generator.cpp"),
    201: ("a value can't be a key of an index", _TEXT + ", s2_key_generator.cpp; documentdb: key too large"),
    10334: ("the document is too large", _LIMITS),
    13026: ("a position is not of numbers, as its 2d index asks", _HASH),
    13027: ("a position is outside the bounds of its 2d index", _HASH),
    13067: ("a position is empty, and has a 2d index", _HASH),
    13068: ("a position has one coordinate only, and a 2d index", _HASH),
    13334: ("its shard key is too large", _CODES + ", up to 4.2"),
    16732: ("it has too many words for a text index", _TEXT),
    16733: ("it has too many words for a text index", _TEXT),
    16755: ("a value is no geometry that its 2dsphere index can hold", _KEYS),
    16756: ("a value is no geometry that its 2dsphere index can hold", _KEYS),
    16766: ("a field with a hashed index is an array", _KEYS),
    16775: ("a position is no pair, as its haystack index asks", _KEYS + ", up to 4.4"),
    16776: ("a position is not of numbers, as its haystack index asks", _KEYS + ", up to 4.4"),
    16804: ("a position is not of numbers, as its 2d index asks", _KEYS),
    17261: ("the field that names its language for a text index is no string", _LANGUAGE),
    17262: ("the field that names its language for a text index names none that is known", _LANGUAGE),
    17280: ("a value is too long for its index", _LIMITS + ", up to 4.0"),
    17419: ("the document is too large", _UPDATE),
    17420: ("the document is too large", _UPSERT),
}

_DUPLICATE = {
    11000: ("another document has the same value", _CODES),
    11001: ("another document has the same value", "pymongo: helpers_shared.py; of updates, up to 2.4"),
    12582: ("another document has the same value", "pymongo: helpers_shared.py; of mongos, up to 2.4"),
}

_ROLES = "grant its user the role again: writethrough access mongo --apply"
_COPY = "copy the documents into an ordinary collection, and map that"
_SERVER = "use a server that has it"
_INDEX = "drop the index that is in its way"
_REPLICAS = "run the server as a replica set"

_SET_UP: dict[int, tuple[str, str, str | None]] = {
    13: ("the user may not do this", "manual: core/authorization", _ROLES),
    18: ("user or password is wrong", "manual: core/authentication", "correct the user, password and authSource"),
    51: ("a person must look", _CODES, "see the server's log"),
    59: ("the server doesn't know a command", _CODES, _SERVER),
    61: ("sharded by another key than the id", "manual: core/sharding-shard-key", "shard the collection by the id"),
    67: ("the index can't be built", "manual: reference/command/createIndexes", None),
    68: ("there is another index of this name", "manual: reference/command/createIndexes", _INDEX),
    69: ("the users are those of another version", _CODES, "finish the server's upgrade"),
    72: ("an option is not allowed here", _CODES, None),
    73: ("the name is none for a collection", _LIMITS, "name another database or collection in MAPPINGS"),
    76: ("the server is no replica set", _CODES, _REPLICAS),
    79: ("the write concern is not known", "manual: reference/write-concern", "see the replica set's settings"),
    85: ("there is such an index with other options", "manual: reference/command/createIndexes", _INDEX),
    86: ("there is another index of this name", "manual: reference/command/createIndexes", _INDEX),
    93: ("the replica set's configuration is invalid", _CODES, "correct it: rs.conf(), rs.reconfig()"),
    94: ("the replica set isn't initiated", "manual: reference/method/rs.initiate", "initiate it: rs.initiate()"),
    100: ("too few members hold data for a majority", "manual: reference/write-concern", "add members that hold data"),
    115: ("the server doesn't support a command", _CODES, _SERVER),
    116: ("the collection is capped", "manual: core/capped-collections", _COPY),
    123: ("the server is no replica set", _CODES, _REPLICAS),
    140: ("the server's TLS settings are wrong", _CODES, "correct them, or the URI's"),
    141: ("TLS could not be agreed on", _CODES, "correct the server's TLS settings, or the URI's"),
    148: ("the server has no read concern majority", "manual: reference/read-concern-majority", "enable it"),
    166: ("the collection is a view", "manual: core/views", "map the collection that it is a view of"),
    167: ("the collection is a view", "manual: core/views", "map the collection that it is a view of"),
    197: ("the server doesn't know an option of an index", _CODES, _SERVER),
    214: (
        "the user may not come from here",
        "manual: core/authentication",
        "see authenticationRestrictions of the user",
    ),
    238: ("the server doesn't have this", _CODES, _SERVER),
    264: ("the server has too many files open", "manual: reference/ulimit", "raise its limit of open files"),
    301: ("the server found its data corrupt", _CODES, "resync or restore that member"),
    334: ("the server doesn't have this way to authenticate", _CODES, "name another authMechanism in the URI"),
    371: ("writes by users are blocked", "manual: reference/command/setUserWriteBlockMode", "end the block"),
    411: ("a query setting rejects our query", "manual: reference/command/setQuerySettings", "remove that setting"),
    8000: ("Atlas refuses", "atlas: reference/faq/storage", "free space, or take a larger tier"),
    10003: ("the collection is capped", "manual: core/capped-collections", _COPY),
    13297: ("a database differs in case only", _CODES, "write it as it is in MAPPINGS"),
    14031: ("the server's disk is full", _CODES, "free disk space"),
}

KNOWN: dict[int, Known] = {
    **{code: Known(Meaning.DOCUMENT, *entry) for code, entry in _DOCUMENT.items()},
    **{code: Known(Meaning.DUPLICATE, *entry) for code, entry in _DUPLICATE.items()},
    **{code: Known(Meaning.SET_UP, *entry) for code, entry in _SET_UP.items()},
}
"""All codes that aren't simply tried again."""


def meaning_of(code: int | None) -> Meaning:
    """What is to be done about an error with this code; None where there is no code."""
    known = KNOWN.get(code) if code is not None else None
    return Meaning.RETRY if known is None else known.meaning


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
